// Page-request groups (Linux: drivers/iommu/io-pgfault.c). A device asks for pages in messages of a group; the driver reports each
// one here. Requests are held per device until the group's last one arrives; then the whole group goes, in order, to whoever
// attached the domain that the request came through, and is answered exactly once.
//
// A request belongs to the attachment that it came through. When the attachment goes, what was held for it is dropped and what was
// delivered and not answered is answered INVALID: nobody who comes later is told of it.
//
// Group indexes are the device's: it may reuse one, invent one or never finish one. They only tell requests of one device apart
// (no table is indexed by them); an unfinished group costs at most MAX_HELD requests.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { EINVAL } from "../../uapi/errno.ts";
import type { Attachment } from "./attachments.ts";
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

interface Held {
  readonly request: PageRequest;
  readonly through: Attachment;
}

// Not state: its collector writes it down.
class Group implements PageRequestGroup {
  readonly device: IommuDevice;
  readonly requests: readonly PageRequest[];
  readonly through: Attachment;
  readonly #send: SendResponse;
  readonly #forget: (group: Group) => void;
  answered = false;

  constructor(
    requests: readonly PageRequest[],
    through: Attachment,
    send: SendResponse,
    forget: (group: Group) => void,
  ) {
    this.device = through.device;
    this.requests = requests;
    this.through = through;
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
export class PageRequestCollector implements Stateful {
  readonly #device: IommuDevice;
  readonly #send: SendResponse;
  #held: Held[] = [];
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
   * Takes one request that came through an attachment. Where nobody handles that attachment's requests, and where too many groups
   * wait, it is answered INVALID at once and the result is -EINVAL; so is a complete group that its handler refuses (-errno).
   */
  report(request: PageRequest, through: Attachment | null): number {
    const handler = through?.handle?.onPageRequests ?? null;
    if (through === null || handler === null) {
      this.#send(request, PAGE_RESPONSE_INVALID);
      return -EINVAL;
    }
    if (!request.last) {
      this.#held.push({ request, through });
      if (this.#held.length > MAX_HELD) this.#held.shift();
      return 0;
    }
    const earlier: PageRequest[] = [];
    this.#held = this.#held.filter((held) => {
      const belongs =
        held.through === through && held.request.group === request.group && held.request.pasid === request.pasid;
      if (belongs) earlier.push(held.request);
      return !belongs;
    });
    const group = this.#group([...earlier, request], through);
    if (this.#outstanding.size >= MAX_OUTSTANDING) {
      group.respond(PAGE_RESPONSE_INVALID);
      return -EINVAL;
    }
    this.#outstanding.add(group);
    const result = handler(group);
    if (result < 0) group.respond(PAGE_RESPONSE_INVALID);
    return result;
  }

  /**
   * An attachment has gone: its unfinished groups are dropped (no answer is due before a last request), what was delivered and not
   * answered is answered INVALID.
   */
  flush(gone: Attachment): void {
    this.#held = this.#held.filter(({ through }) => through !== gone);
    for (const group of [...this.#outstanding]) if (group.through === gone) group.respond(PAGE_RESPONSE_INVALID);
  }

  /** Unfinished groups may have lost requests: they are dropped. */
  discardPartial(): void {
    this.#held = [];
  }

  #group(requests: readonly PageRequest[], through: Attachment): Group {
    return new Group(requests, through, this.#send, (gone) => this.#outstanding.delete(gone));
  }

  /** Complete groups without an answer, oldest first: a fault queue's state refers to them by their places. */
  get unanswered(): readonly PageRequestGroup[] {
    return [...this.#outstanding];
  }

  saveState(): StateRecord {
    return {
      held: this.#held.map(({ request, through }) => ({ request: savedRequest(request), through: through.pasid })),
      outstanding: [...this.#outstanding].map(({ requests, through }) => ({
        requests: requests.map(savedRequest),
        through: through.pasid,
      })),
    };
  }

  restoreState(state: StateReader): void {
    const through = (saved: StateReader): Attachment =>
      this.#device.attachments.at(saved.number("through")) ?? saved.fail("through", "is nothing attached here");
    this.#held = state.records("held").map((saved) => ({
      request: restoredRequest(saved.record("request")),
      through: through(saved),
    }));
    const groups = state
      .records("outstanding")
      .map((saved) => this.#group(saved.records("requests").map(restoredRequest), through(saved)));
    this.#outstanding.clear();
    for (const group of groups) this.#outstanding.add(group);
  }
}

export function savedRequest({ pasid, group, last, permissions, address, answerWithPasid }: PageRequest): StateRecord {
  return { pasid, group, last, permissions, address, answerWithPasid: answerWithPasid ?? null };
}

export function restoredRequest(saved: StateReader): PageRequest {
  const answerWithPasid = saved.optional("answerWithPasid", (reader, name) => reader.boolean(name));
  return {
    pasid: saved.number("pasid"),
    group: saved.number("group"),
    last: saved.boolean("last"),
    permissions: saved.number("permissions"),
    address: saved.bigint("address"),
    ...(answerWithPasid === null ? {} : { answerWithPasid }),
  };
}

/** A group that was answered behind its handler's back, as restored: no answer of the handler's goes anywhere. */
export function answeredGroup(device: IommuDevice, requests: readonly PageRequest[]): PageRequestGroup {
  return { device, requests, answered: true, respond: () => {} };
}
