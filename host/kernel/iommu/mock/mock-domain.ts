// Page tables of the selftest driver: a table of runs instead of a tree of entries, which answers the same questions - where an IOVA
// leads, what was written. The default kind has 2 KiB leaves and a small aperture, so that iommufd's handling of IOMMU pages smaller
// than the CPU's is exercised; the huge kind has 4 KiB and 1 MiB leaves and no aperture.

import { EADDRINUSE, EINVAL } from "../../../uapi/errno.ts";
import { type Interval, IntervalTree } from "../../iommufd/interval-tree.ts";
import { AttachmentList } from "../attachments.ts";
import type {
  DirtyOperations,
  InvalidationBatch,
  IommuDevice,
  IommuDomain,
  IommuDriver,
  NestedDomain,
  PagingDomain,
} from "../driver.ts";
import { type MockDevice, mockDeviceOf } from "./mock-device.ts";
import type { MockViommu } from "./mock-viommu.ts";

export const MOCK_PAGE = 2048n;
export const MOCK_HUGE_PAGE = 512n * MOCK_PAGE;
const MOCK_APERTURE = { start: 1n << 24n, last: (1n << 31n) - 1n };
const WHOLE_APERTURE = { start: 0n, last: (1n << 56n) - 1n };

interface Run extends Interval {
  readonly physical: bigint;
  readonly protection: number;
}

/** There is nothing to switch: attaching is a look at the device's guest id. */
export abstract class MockDomain {
  readonly owner: IommuDriver;
  readonly attachments = new AttachmentList();
  readonly viommu: MockViommu | null = null;
  abstract readonly kind: IommuDomain["kind"];

  constructor(owner: IommuDriver) {
    this.owner = owner;
  }

  protected refusal(_device: MockDevice): number {
    return 0;
  }

  attach(device: IommuDevice, old: IommuDomain | null): number {
    const mock = mockDeviceOf(device);
    const refused = this.refusal(mock);
    if (refused < 0) return refused;
    return mock.enter(this.viommu, (old as MockDomain | null)?.viommu ?? null);
  }

  /** PASID 1024 fails every second time, so that the core's way back is exercised. */
  setPasid(device: IommuDevice, pasid: number, _old: IommuDomain | null): number {
    return mockDeviceOf(device).setPasid(pasid, this.kind === "blocked");
  }

  abstract free(): void;
}

export class MockBlockedDomain extends MockDomain implements IommuDomain {
  readonly kind = "blocked";

  free(): void {}
}

export class MockPagingDomain extends MockDomain implements PagingDomain {
  readonly kind = "paging";
  readonly pageSizes: bigint;
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  readonly forceAperture = true;
  readonly enforcesCoherency = false;
  readonly nestParent: boolean;
  readonly dirty?: MockDirtyBits;
  readonly #huge: boolean;
  readonly #runs = new IntervalTree<Run>();

  constructor(owner: IommuDriver, huge: boolean, nestParent: boolean, dirtyTracking: boolean) {
    super(owner);
    this.#huge = huge;
    this.nestParent = nestParent;
    this.aperture = huge ? WHOLE_APERTURE : MOCK_APERTURE;
    // The default kind takes any power of two from its granule up; the huge one must offer a CPU page, too.
    this.pageSizes = huge ? MOCK_HUGE_PAGE | 4096n : BigInt.asUintN(56, ~(MOCK_PAGE - 1n));
    if (dirtyTracking) this.dirty = new MockDirtyBits(this);
  }

  protected override refusal(device: MockDevice): number {
    return this.dirty !== undefined && device.noDirtyTracking ? -EINVAL : 0;
  }

  /** Runs in the table, for tests. */
  get runs(): number {
    return this.#runs.size;
  }

  /** What is mapped, in ascending order, for tests. */
  eachRun(visit: (run: Run) => void): void {
    for (const run of this.#runs) visit(run);
  }

  map(iova: bigint, physical: bigint, size: bigint, protection: number): number {
    const smallest = this.pageSizes & -this.pageSizes;
    if (size === 0n || ((iova | physical | size) & (smallest - 1n)) !== 0n) return -EINVAL;
    const last = iova + size - 1n;
    if (iova < this.aperture.start || last > this.aperture.last) return -EINVAL;
    if (this.#runs.firstIn(iova, last) !== null) return -EADDRINUSE;
    // What continues the run before it joins that, as entries of one table would follow each other.
    const before = iova === 0n ? null : this.#runs.at(iova - 1n);
    const continues =
      before !== null &&
      before.protection === protection &&
      before.physical + (before.last - before.start + 1n) === physical;
    if (continues) this.#runs.remove(before);
    this.#runs.insert(
      continues
        ? { start: before.start, last, physical: before.physical, protection }
        : { start: iova, last, physical, protection },
    );
    return 0;
  }

  unmap(iova: bigint, size: bigint): bigint {
    const last = iova + size - 1n;
    let unmapped = 0n;
    for (;;) {
      const run = this.#runs.firstIn(iova, last);
      if (run === null) break;
      this.#runs.remove(run);
      const { start, physical, protection } = run;
      let from = start;
      let to = run.last;
      if (start < iova) {
        this.#runs.insert({ start, last: iova - 1n, physical, protection });
        from = iova;
      }
      if (run.last > last) {
        this.#runs.insert({ start: last + 1n, last: run.last, physical: physical + (last + 1n - start), protection });
        to = last;
      }
      unmapped += to - from + 1n;
    }
    this.dirty?.forget(iova, last);
    return unmapped;
  }

  sync(): void {}

  iovaToPhys(iova: bigint): bigint | null {
    const run = this.#runs.at(iova);
    return run === null ? null : run.physical + (iova - run.start);
  }

  /** The leaf that maps an IOVA; null if none does. */
  leafAt(iova: bigint): { iova: bigint; size: bigint } | null {
    const run = this.#runs.at(iova);
    if (run === null) return null;
    if (!this.#huge) return { iova: (iova / MOCK_PAGE) * MOCK_PAGE, size: MOCK_PAGE };
    const start = (iova / MOCK_HUGE_PAGE) * MOCK_HUGE_PAGE;
    const physical = run.physical + (start - run.start);
    const large = start >= run.start && start + MOCK_HUGE_PAGE - 1n <= run.last && physical % MOCK_HUGE_PAGE === 0n;
    return large ? { iova: start, size: MOCK_HUGE_PAGE } : { iova: (iova / 4096n) * 4096n, size: 4096n };
  }

  /** Doorbell pages of interrupts may still be mapped; they go with the table. */
  free(): void {
    this.#runs.clear();
  }
}

/** Dirty bits of a table's leaves. */
export class MockDirtyBits implements DirtyOperations {
  readonly #table: MockPagingDomain;
  readonly #leaves = new Map<bigint, bigint>();
  tracking = false;

  constructor(table: MockPagingDomain) {
    this.#table = table;
  }

  setTracking(on: boolean): number {
    this.tracking = on;
    return 0;
  }

  /** A device wrote to an IOVA. */
  mark(iova: bigint): void {
    const leaf = this.#table.leafAt(iova);
    if (leaf !== null) this.#leaves.set(leaf.iova, leaf.size);
  }

  readAndClear(iova: bigint, size: bigint, keep: boolean, report: (iova: bigint, size: bigint) => void): number {
    const end = iova + size;
    for (const [leaf, bytes] of this.#leaves) {
      if (leaf >= end || leaf + bytes <= iova) continue;
      report(leaf, bytes);
      if (!keep) this.#leaves.delete(leaf);
    }
    return 0;
  }

  forget(iova: bigint, last: bigint): void {
    for (const [leaf, bytes] of this.#leaves) {
      if (leaf <= last && leaf + bytes > iova) this.#leaves.delete(leaf);
    }
  }
}

export const MOCK_IOTLB_ENTRIES = 4;

/** A stage 1 of user space's: four numbers standing for cached translations. */
export class MockNestedDomain extends MockDomain implements NestedDomain {
  readonly kind = "nested";
  readonly parent: PagingDomain;
  override readonly viommu: MockViommu | null;
  readonly iotlb: Uint32Array;
  readonly invalidate: (batch: InvalidationBatch) => number;

  constructor(
    owner: IommuDriver,
    parent: PagingDomain,
    viommu: MockViommu | null,
    iotlb: number,
    invalidate: (domain: MockNestedDomain, batch: InvalidationBatch) => number,
  ) {
    super(owner);
    this.parent = parent;
    this.viommu = viommu;
    this.iotlb = new Uint32Array(MOCK_IOTLB_ENTRIES).fill(iotlb);
    this.invalidate = (batch) => invalidate(this, batch);
  }

  free(): void {}
}
