// When this process began its first task and ended its latest one, in the form of ../clock.py.
import fs from "node:fs";

let first = 0, last = 0, done = 0n;

export function timed(work) {
  return async (job) => {
    first ||= Date.now() / 1000;
    const result = await work(job);
    last = Date.now() / 1000;
    done += 1n;
    return result;
  };
}

export function tell() {
  const cells = Buffer.alloc(24);
  const file = fs.openSync(`${process.env.CLOCKS}/${process.pid}`, "w");
  fs.writeSync(file, cells, 0, 24, 0);
  setInterval(() => {
    cells.writeDoubleLE(first, 0);
    cells.writeDoubleLE(last, 8);
    cells.writeBigInt64LE(done, 16);
    fs.writeSync(file, cells, 0, 24, 0);
  }, 50);
  console.log("ready");
}
