// A program that is going to be killed: an NVMe controller on the file named by its argument, and a driver that writes block after
// block, flushes, and prints the block's number once the Flush has completed.

import { writeSync } from "node:fs";
import { BlockFile } from "../../../host/adapters/block-file.ts";
import { DATA, NvmeTestDriver } from "../devices/nvme/test-driver.ts";

const store = new BlockFile({ path: process.argv[2]!, onProblem: (message) => writeSync(2, `${message}\n`) });
const nvme = new NvmeTestDriver(store);
nvme.enable();
nvme.createIoQueue(1);
for (let block = 0; block < store.blocks; block++) {
  nvme.view.setUint32(DATA, block, true);
  nvme.view.setUint32(DATA + 508, ~block, true);
  const write = nvme.transfer(true, block, 1);
  const flush = nvme.run(1, 0, { 1: 1 });
  if (write.status !== 0 || flush.status !== 0) process.exit(1);
  writeSync(1, `${block}\n`);
}
