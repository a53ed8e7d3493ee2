// Page-request groups (Linux: drivers/iommu/io-pgfault.c). A device asks for pages in messages of a group; the driver reports each
// one here. Requests are held per device until the group's last one arrives; then the whole group goes, in order, to whoever
// attached the domain that the request came through, and is answered exactly once.
//
// Group indexes are the device's: it may reuse one, invent one or never finish one. They only tell requests of one device apart
// (no table is indexed by them); an unfinished group costs at most MAX_HELD requests and dies with the domain or the device.

import type { IommuDevice, PageRequest } from "./driver.ts";

export const PAGE_RESPONSE_SUCCESS = 0;
export const PAGE_RESPONSE_INVALID = 1;
export const PAGE_RESPONSE_FAILURE = 0xf;

/** Requests of unfinished groups held for one device; past it the oldest are given up (their group will be answered by its last). */
export const MAX_HELD = 512;

/**
 * Groups of one device that may wait for an answer: as many as there are group indexes (PCIe 6.0 §10.4.1, 9 bits). A device that sends
 * more breaks the rules, and gets INVALID for them; whoever handles groups need not bound what it keeps.
 */
export const MAX_OUTSTANDING = 512;

/** A complete group on its way to its handler. */
export interface PageRequestGroup {
  readonly device: IommuDevice;
  /** In the order of arrival; the last one has `last`. Never empty. */
  readonly requests: readonly PageRequest[];
  readonly answered: boolean;
  /** Answers the device, once; later calls do nothing. */
  respond(code: number): void;
}

export type PageRequestHandler = (group: PageRequestGroup) => number;

/** Where a group's answer goes: the driver's pageResponse. */
export type SendResponse = (request: PageRequest, code: number) => void;

class Group implements PageRequestGroup {
  readonly device: IommuDevice;
  readonly requests: readonly PageRequest[];
  readonly #send: SendResponse;
  readonly #forget: (group: Group) => void;
  answered = false;

  constructor(
    device: IommuDevice,
    requests: readonly PageRequest[],
    send: SendResponse,
    forget: (group: Group) => void,
  ) {
    this.device = device;
    this.requests = requests;
    this.#send = send;
    this.#forget = forget;
  }

  respond(code: number): void {
    if (this.answered) return;
    this.answered = true;
    this.#forget(this);
    this.#send(this.requests[this.requests.length - 1]!, code);
  }
}

/** Collects the page requests of one device. */
export class PageRequestCollector {
  readonly #device: IommuDevice;
  readonly #send: SendResponse;
  #held: PageRequest[] = [];
  readonly #outstanding = new Set<Group>();

  constructor(device: IommuDevice, send: SendResponse) {
    this.#device = device;
    this.#send = send;
  }

  /** Requests of unfinished groups. */
  get held(): number {
    return this.#held.length;
  }

  /** Groups delivered and not answered yet. */
  get outstanding(): number {
    return this.#outstanding.size;
  }

  /**
   * Takes one request. `handler` is who handles its PASID now; without one or with too many groups waiting (the result is then
   * `noHandler`), or when it refuses (-errno), a complete group is answered INVALID at once.
   */
  report(request: PageRequest, handler: PageRequestHandler | null, noHandler: number): number {
    if (!request.last) {
      this.#held.push(request);
      if (this.#held.length > MAX_HELD) this.#held.shift();
      return 0;
    }
    const belongs = (held: PageRequest) => held.group === request.group && held.pasid === request.pasid;
    const earlier = this.#held.filter(belongs);
    this.#held = this.#held.filter((held) => !belongs(held));
    const group = new Group(this.#device, [...earlier, request], this.#send, (gone) => this.#outstanding.delete(gone));
    if (handler === null || this.#outstanding.size >= MAX_OUTSTANDING) {
      group.respond(PAGE_RESPONSE_INVALID);
      return noHandler;
    }
    this.#outstanding.add(group);
    const result = handler(group);
    if (result < 0) group.respond(PAGE_RESPONSE_INVALID);
    return result;
  }

  /**
   * Page requests are turned off for the device (Linux: iopf_queue_remove_device): unfinished groups are dropped (no answer is due
   * before a last request), what was delivered and not answered is answered INVALID.
   */
  flush(): void {
    this.#held = [];
    for (const group of [...this.#outstanding]) group.respond(PAGE_RESPONSE_INVALID);
  }
}
