// What a process does with an SMMUv3's CMDQV in a round of `nestbox fuzz ioctl`: vIOMMUs with a VINTF, their queues in the guest's memory, their page
// mapped and scribbled on as a hostile guest would, which asks nobody.

import type { MmioPort } from "../../../host/base/mmio.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import * as S from "../../../host/uapi/smmuv3-nesting.ts";
import { RAM_GPA } from "../../host/kernel/guest.ts";
import type { User } from "../../host/kernel/machine.ts";
import type { Dice } from "../attachments/dice.ts";
import type { HostileGuest } from "./smmuv3-guest.ts";

const DATA = 4096n;
const PAGE_BYTES = 0x10000;
/** Pages of guest RAM that queues stand in. */
const RINGS = 8;
/** First commands of a page that are given. */
const SLOTS = 32;
const [CONS, PROD, CONFIG, STATUS, GERROR, GERRORN] = [0, 4, 8, 0xc, 0x10, 0x14];

export class QueueActions {
  readonly #dice: Dice;
  readonly #user: User;
  readonly #iommufd: number;
  readonly #guest: HostileGuest;
  /** What VIOMMU_ALLOC said of each page. */
  readonly #offsets: bigint[] = [];
  readonly #pages: MmioPort[] = [];
  readonly #viommus: number[] = [];
  last = "";

  constructor(dice: Dice, user: User, iommufd: number, guest: HostileGuest) {
    this.#dice = dice;
    this.#user = user;
    this.#iommufd = iommufd;
    this.#guest = guest;
    for (let i = 0; i < 2 * RINGS * SLOTS; i++) this.#command();
  }

  /** VIOMMU_ALLOC of type 2. */
  viommu(device: number, parent: number): number {
    const length = this.#dice.chance(95) ? 16 : this.#dice.pick([0, 8, 24]);
    this.last = `VIOMMU_ALLOC with queues, ${length} bytes`;
    const at = this.#user.scratch + DATA;
    const reply = this.#user.call(this.#iommufd, I.IOMMU_VIOMMU_ALLOC, I.iommuViommuAlloc, {
      type: S.IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
      dev_id: device,
      hwpt_id: parent,
      data_len: length,
      data_uptr: length === 0 ? 0n : at,
    });
    if (reply.result < 0) return reply.result;
    this.#viommus.push(reply.out_viommu_id);
    const data = S.iommuViommuTegra241Cmdqv.decode(this.#user.process.memory.bytes(at, 16));
    this.#offsets.push(data.out_vintf_mmap_offset);
    return reply.out_viommu_id;
  }

  /** HW_QUEUE_ALLOC: an id, or a negated errno. */
  queue(any: number): number {
    const dice = this.#dice;
    const viommu = this.#viommus.length > 0 && dice.chance(90) ? dice.pick(this.#viommus) : any;
    const index = dice.pick([0, 0, 0, 0, 0, 1, 1, 2, 7]);
    const length = dice.chance(90) ? 1n << BigInt(5 + dice.below(8)) : dice.pick([0n, 16n, 33n, 1n << 20n, 1n << 40n]);
    const gpa = RAM_GPA + BigInt(dice.below(RINGS) * 4096) + (dice.chance(10) ? BigInt(dice.below(4096)) : 0n);
    this.last = `HW_QUEUE_ALLOC ${index} of ${length} bytes at 0x${gpa.toString(16)}`;
    const reply = this.#user.call(this.#iommufd, I.IOMMU_HW_QUEUE_ALLOC, I.iommuHwQueueAlloc, {
      viommu_id: viommu,
      type: dice.chance(95) ? S.IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV : dice.below(3),
      index,
      nesting_parent_iova: gpa,
      length,
    });
    return reply.result < 0 ? reply.result : reply.out_hw_queue_id;
  }

  /** mmap of a VINTF's page. */
  map(): number {
    const dice = this.#dice;
    if (this.#offsets.length === 0) return 0;
    const offset = dice.pick(this.#offsets) + (dice.chance(90) ? 0n : BigInt(dice.below(32) * 4096));
    const length = dice.chance(90) ? PAGE_BYTES : dice.pick([4096, 2 * PAGE_BYTES]);
    this.last = `mmap of ${length} bytes at 0x${offset.toString(16)}`;
    const page = this.#user.process.mmapRegion(this.#iommufd, offset, length);
    if (typeof page === "number") return page;
    this.#pages.push(page);
    return 0;
  }

  /** The guest's stores to its pages and queues. */
  scribble(): number {
    const dice = this.#dice;
    if (this.#pages.length === 0) return 0;
    this.last = "a guest's stores to its queues";
    const page = dice.pick(this.#pages);
    for (let i = 0; i < 16; i++) this.#command();
    for (const queue of [0, 0x80]) this.#goOn(page, queue);
    for (let i = dice.pick([0, 0, 6]); i > 0; i--) {
      const queue = 0x80 * dice.pick([0, 0, 1, 2]);
      const register = dice.pick([PROD, PROD, PROD, CONFIG, GERRORN, 4 * dice.below(32)]);
      const value = register === CONFIG || register === GERRORN ? dice.below(2) : dice.below(20);
      const anywhere = dice.chance(10);
      const at = anywhere ? 4 * dice.below(PAGE_BYTES / 4 + 16) : queue + register;
      page.mmioWrite(at, dice.chance(95) ? 4 : dice.pick([1, 2, 8]), anywhere ? dice.below(2 ** 31) : value, 0);
    }
    return 0;
  }

  /** What a guest's driver does: enables, acknowledges, gives commands. */
  #goOn(page: MmioPort, queue: number): void {
    if (page.mmioRead(queue + STATUS, 4) === 0) page.mmioWrite(queue + CONFIG, 4, 1, 0);
    const cons = page.mmioRead(queue + CONS, 4) & 0xfffff;
    // An error that stays is tried again: the command in its place is another by now, with luck.
    page.mmioWrite(queue + GERRORN, 4, page.mmioRead(queue + GERROR, 4), 0);
    page.mmioWrite(queue + PROD, 4, cons + this.#dice.below(6), 0);
  }

  #command(): void {
    const dice = this.#dice;
    const { ram } = this.#guest;
    const at = RAM_GPA + BigInt(dice.below(RINGS) * 4096 + 16 * dice.below(SLOTS));
    let [word0, word1] = this.#guest.command();
    if (dice.chance(85)) {
      const opcode = BigInt(dice.pick([0x11, 0x12, 0x40, 0x46]));
      const stream = BigInt(dice.pick([0x10, 0x11, 0x0108]));
      word0 = opcode | ((opcode === 0x40n ? stream : BigInt(dice.below(4))) << 32n);
      word1 = opcode === 0x40n ? 52n : 0x4000_0001n;
    }
    ram.store(at, word0);
    ram.store(at + 8n, word1);
  }
}
