// BullMQ: node bullmq.mjs prepare | publish COUNT | work
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { tell, timed } from "./clock.mjs";

const [, , command, count] = process.argv;
const connection = new Redis(process.env.VALKEY_SOCKET, { maxRetriesPerRequest: null });

if (command === "publish") {
  const queue = new Queue("add", { connection });
  for (let sent = 0; sent < +count; sent += 1000) {
    await queue.addBulk(Array.from({ length: 1000 }, () => ({ name: "add", data: { a: 4, b: 7 } })));
  }
} else if (command === "work") {
  new Worker("add", timed(async ({ data }) => data.a + data.b), { connection, concurrency: +process.env.AT_ONCE });
  tell();
}
if (command !== "work") process.exit(0);
