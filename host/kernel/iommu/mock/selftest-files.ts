// Files that the selftest driver makes: an access (a mediated device's use of an IOAS) and a dma-buf.

import { ENODEV } from "../../../uapi/errno.ts";
import { type DmaBuffer, type DmaBufferAttachment, type FrameRun, OpenFile } from "../../file.ts";
import { type Access, type AccessDriver, destroyAccess, unpinPages } from "../../iommufd/in-kernel.ts";
import { U64_MAX } from "../../iommufd/iova-ranges.ts";

interface PinnedItem {
  readonly id: number;
  readonly iova: bigint;
  readonly length: bigint;
}

/** Remembers what it has pinned, and unpins it when it is asked to. */
export class TestAccessFile extends OpenFile implements AccessDriver {
  readonly path = "anon_inode:[iommufd_test_staccess]";
  readonly needsPinnedPages: boolean;
  access: Access | null = null;
  #items: PinnedItem[] = [];
  #nextId = 0;

  constructor(needsPinnedPages: boolean) {
    super();
    this.needsPinnedPages = needsPinnedPages;
  }

  add(iova: bigint, length: bigint): number {
    const id = this.#nextId++;
    this.#items.push({ id, iova, length });
    return id;
  }

  /** The caller unpins what was added last itself. */
  forgetLast(): void {
    this.#items.pop();
  }

  /** Unpins one item; false if there is none with this id. */
  unpinItem(id: number): boolean {
    const item = this.#items.find((candidate) => candidate.id === id);
    if (item === undefined || this.access === null) return false;
    this.#items = this.#items.filter((candidate) => candidate !== item);
    unpinPages(this.access, item.iova, item.length);
    return true;
  }

  unmap(iova: bigint, length: bigint): void {
    const last = iova + length - 1n;
    const concerned = this.#items.filter((item) => iova <= item.iova + item.length - 1n && last >= item.iova);
    for (const item of concerned) this.unpinItem(item.id);
  }

  protected override release(): void {
    if (this.access === null) return;
    this.unmap(0n, U64_MAX);
    destroyAccess(this.access);
  }
}

/** Frame numbers from here on are no memory's: a test dma-buf's pages are only ever compared. */
export const DMA_BUFFER_FRAMES = 2 ** 51;

export class TestDmaBufferFile extends OpenFile implements DmaBuffer {
  readonly path = "anon_inode:dmabuf";
  override readonly dmaBuffer: DmaBuffer = this;
  readonly bytes: bigint;
  readonly #runs: readonly FrameRun[];
  readonly #importers = new Set<() => void>();
  #revoked = false;

  constructor(firstFrame: number, length: number) {
    super();
    this.bytes = BigInt(length);
    this.#runs = [{ frame: firstFrame, count: length / 4096 }];
  }

  frames(): FrameRun[] | number {
    return this.#revoked ? -ENODEV : [...this.#runs];
  }

  attach(revoked: () => void): DmaBufferAttachment {
    this.#importers.add(revoked);
    return { detach: () => this.#importers.delete(revoked) };
  }

  setRevoked(revoked: boolean): void {
    this.#revoked = revoked;
    for (const importer of [...this.#importers]) importer();
  }

  protected override release(): void {}
}
