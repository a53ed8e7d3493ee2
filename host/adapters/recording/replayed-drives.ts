// Drives in files of which a recording has what was read.

import { BLOCK_FAILED, BLOCK_OK, type BlockStatus, type BlockStore } from "../../devices/nvme/block-store.ts";
import type { Answers } from "./expected-records.ts";
import * as records from "./host-records.ts";

export class ReplayedDrives {
  readonly #answers: Answers;
  #count = 0;

  constructor(answers: Answers) {
    this.#answers = answers;
  }

  open(blockBytes: 512 | 4096): BlockStore & { close(): void } {
    const reader = this.#answers.expect(records.DRIVE);
    const blocks = reader.number();
    const recorded = reader.number();
    if (recorded !== blockBytes) {
      throw this.#answers.different(
        `the model's drive has blocks of ${blockBytes} bytes, the recorded one of ${recorded}`,
      );
    }
    return new ReplayedDrive(this.#count++, blocks, blockBytes, this.#answers);
  }
}

class ReplayedDrive implements BlockStore {
  readonly blocks: number;
  readonly blockBytes: number;
  readonly #number: number;
  readonly #answers: Answers;

  constructor(number: number, blocks: number, blockBytes: number, answers: Answers) {
    this.#number = number;
    this.blocks = blocks;
    this.blockBytes = blockBytes;
    this.#answers = answers;
  }

  read(_first: number, count: number, into: Uint8Array, at: number): BlockStatus {
    const status = this.#status(records.DRIVE_READ);
    this.#answers.fill(into.subarray(at, at + count * this.blockBytes));
    this.#answers.read();
    return status;
  }

  write(): BlockStatus {
    return this.#done();
  }

  flush(): BlockStatus {
    return this.#done();
  }

  zero(): BlockStatus {
    return this.#done();
  }

  discard(): BlockStatus {
    return this.#done();
  }

  close(): void {}

  #done(): BlockStatus {
    const status = this.#status(records.DRIVE_DONE);
    this.#answers.read();
    return status;
  }

  #status(type: number): BlockStatus {
    return this.#answers.expect(type, this.#number).number() === BLOCK_OK ? BLOCK_OK : BLOCK_FAILED;
  }
}
