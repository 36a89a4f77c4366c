// Graphile Worker: node graphile.mjs prepare | publish COUNT | work
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { tell, timed } from "./clock.mjs";

const [, , command, count] = process.argv;
const batches = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
const worker = {
  connectionString: process.env.DATABASE_URL,
  concurrentJobs: +process.env.AT_ONCE,
  maxPoolSize: 10,
  ...(process.env.BATCHES ? batches : {}),
};

if (command === "work") {
  const taskList = { add: timed(async ({ a, b }) => a + b) };
  await run({ preset: { worker }, logger: new Logger(() => () => {}), noHandleSignals: true, taskList });
  tell();
} else {
  const utils = await makeWorkerUtils({ connectionString: process.env.DATABASE_URL });
  if (command === "prepare") await utils.migrate();
  for (let sent = 0; sent < +(count ?? 0); sent += 1000) {
    await utils.addJobs(Array.from({ length: 1000 }, () => ({ identifier: "add", payload: { a: 4, b: 7 } })));
  }
  await utils.release();
}
