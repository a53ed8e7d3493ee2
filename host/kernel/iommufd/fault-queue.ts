// Fault queue objects (Linux: iommufd/eventq.c): page-request groups of devices attached through HWPTs with a fault queue, read from
// a file as whole groups of `iommu_hwpt_pgfault`, answered by writing `iommu_hwpt_page_response`.
//
//     device ─→ group complete ─→ deliver list ─→ read: gets a cookie ─→ written answer ─→ device
//                                      └──── detach, replace, destroy ─→ answered INVALID ────┘
//
// A cookie is the kernel's, the lowest free number of this queue from 1; it names one group until that is answered.

import { StateError, type StateReader, type StateRecord } from "../../base/state.ts";
import { EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, ESPIPE } from "../../uapi/errno.ts";
import {
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMUFD_PAGE_RESP_SUCCESS,
  iommuFaultAlloc,
  iommuHwptPageResponse,
  iommuHwptPgfault,
} from "../../uapi/iommufd.ts";
import { POLLOUT } from "../../uapi/system-calls.ts";
import type { CallContext } from "../file.ts";
import type { AttachHandle } from "../iommu/attachments.ts";
import { answeredGroup, type PageRequestGroup, restoredRequest, savedRequest } from "../iommu/page-requests.ts";
import type { IommufdCommand } from "./command.ts";
import { EventQueue } from "./event-file.ts";
import { nameOfObject } from "./object-table.ts";
import { readUser, writeUser } from "./user-copy.ts";

const MESSAGE_BYTES = 40;
const RESPONSE_BYTES = 8;

interface WaitingGroup {
  readonly requests: PageRequestGroup;
  /** Object id of the device, as user space knows it. */
  readonly deviceId: number;
  readonly handle: AttachHandle;
}

export class FaultQueue extends EventQueue {
  readonly type = "fault-queue";
  #deliver: WaitingGroup[] = [];
  /** Read and not answered, by cookie. */
  readonly #awaiting = new Map<number, WaitingGroup>();
  #lowestCookie = 1;

  get pollEvents(): number {
    return POLLOUT;
  }

  get deliverable(): boolean {
    return this.#deliver.length > 0;
  }

  /** Groups delivered or read and not answered yet. */
  get outstanding(): number {
    return this.#deliver.length + this.#awaiting.size;
  }

  /** What groups came through that are delivered or not answered yet. */
  get concerned(): ReadonlySet<AttachHandle> {
    return new Set([...this.#deliver, ...this.#awaiting.values()].map(({ handle }) => handle));
  }

  /** A complete group has come through what `handle` stands for. */
  deliver(requests: PageRequestGroup, deviceId: number, handle: AttachHandle): number {
    const { injector } = this.context.environment;
    if (injector.allocation("fault group") || injector.loseEvent("fault")) return -ENOMEM;
    this.#deliver.push({ requests, deviceId, handle });
    this.file?.ready();
    return 0;
  }

  /**
   * What came through a handle that has gone is forgotten (iommufd_auto_response_faults); null: everything. The iommu core has answered
   * INVALID already where a device left.
   */
  answerAll(handle: AttachHandle | null): void {
    const concerns = (group: WaitingGroup) => handle === null || group.handle === handle;
    const gone = this.#deliver.filter(concerns);
    this.#deliver = this.#deliver.filter((group) => !concerns(group));
    for (const group of gone) group.requests.respond(IOMMUFD_PAGE_RESP_INVALID);
    for (const [cookie, group] of [...this.#awaiting]) {
      if (!concerns(group)) continue;
      this.#forget(cookie);
      group.requests.respond(IOMMUFD_PAGE_RESP_INVALID);
    }
  }

  override destroy(): void {
    this.answerAll(null);
  }

  override read(call: CallContext, va: bigint, length: number): number {
    if (length % MESSAGE_BYTES !== 0) return -ESPIPE;
    let done = 0;
    while (this.#deliver.length > 0) {
      const group = this.#deliver[0]!;
      const bytes = group.requests.requests.length * MESSAGE_BYTES;
      if (bytes > length - done) return done > 0 ? done : -EINVAL;
      const cookie = this.#lowestFreeCookie();
      const messages = compose(group, cookie);
      if (writeUser(call.memory, va + BigInt(done), messages) < 0) return done > 0 ? done : -EFAULT;
      this.#deliver.shift();
      this.#awaiting.set(cookie, group);
      done += bytes;
    }
    return done;
  }

  override write(call: CallContext, va: bigint, length: number): number {
    if (length % RESPONSE_BYTES !== 0) return -ESPIPE;
    const bytes = new Uint8Array(RESPONSE_BYTES);
    for (let done = 0; done < length; done += RESPONSE_BYTES) {
      if (readUser(call.memory, va + BigInt(done), bytes) < 0) return done > 0 ? done : -EFAULT;
      const { cookie, code } = iommuHwptPageResponse.decode(bytes);
      const group = this.#awaiting.get(cookie);
      const known = code === IOMMUFD_PAGE_RESP_SUCCESS || code === IOMMUFD_PAGE_RESP_INVALID;
      if (!known || group === undefined) return done > 0 ? done : -EINVAL;
      this.#forget(cookie);
      group.requests.respond(code);
    }
    return length;
  }

  #lowestFreeCookie(): number {
    while (this.#awaiting.has(this.#lowestCookie)) this.#lowestCookie++;
    return this.#lowestCookie;
  }

  #forget(cookie: number): void {
    this.#awaiting.delete(cookie);
    if (cookie < this.#lowestCookie) this.#lowestCookie = cookie;
  }

  // --- state: groups are the iommu core's (restored before), handles those of the attachments ---

  override saveState(): StateRecord {
    return {
      ...super.saveState(),
      deliver: this.#deliver.map((group) => this.#savedGroup(group)),
      awaiting: [...this.#awaiting].map(([cookie, group]) => ({ cookie, group: this.#savedGroup(group) })),
      lowestCookie: this.#lowestCookie,
    };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    this.#deliver = state.records("deliver").map((saved) => this.#restoredGroup(saved));
    this.#awaiting.clear();
    for (const saved of state.records("awaiting")) {
      this.#awaiting.set(saved.number("cookie"), this.#restoredGroup(saved.record("group")));
    }
    this.#lowestCookie = state.number("lowestCookie");
  }

  #savedGroup({ requests, deviceId, handle }: WaitingGroup): StateRecord {
    const { iommu } = this.context.environment;
    const place = iommu.unansweredOf(requests.device).indexOf(requests);
    return {
      device: requests.device.name,
      deviceId,
      through: this.#throughWhat(handle),
      unanswered: place < 0 ? null : place,
      requests: place < 0 ? requests.requests.map(savedRequest) : [],
    };
  }

  #restoredGroup(saved: StateReader): WaitingGroup {
    const { iommu } = this.context.environment;
    const name = saved.text("device");
    const device = iommu.deviceNamed(name) ?? saved.fail("device", `is ${name}, which is not here`);
    const place = saved.optional("unanswered", (reader, field) => reader.number(field));
    const requests =
      place === null
        ? answeredGroup(device, saved.records("requests").map(restoredRequest))
        : (iommu.unansweredOf(device)[place] ?? saved.fail("unanswered", "is out of range"));
    return { requests, deviceId: saved.number("deviceId"), handle: this.#handleOf(saved) };
  }

  #throughWhat(handle: AttachHandle): StateRecord {
    for (const { group, attachments } of this.context.deviceGroups.values()) {
      for (const [pasid, attachment] of attachments) {
        if (attachment.handle === handle) return { group: group.id, pasid };
      }
    }
    throw new StateError(`${nameOfObject(this)}: a group waits that came through nothing attached`);
  }

  #handleOf(saved: StateReader): AttachHandle {
    const through = saved.record("through");
    for (const { group, attachments } of this.context.deviceGroups.values()) {
      const attachment = group.id === through.number("group") ? attachments.get(through.number("pasid")) : undefined;
      if (attachment !== undefined) return attachment.handle;
    }
    return saved.fail("through", "is nothing attached here");
  }
}

function compose(group: WaitingGroup, cookie: number): Uint8Array {
  const { requests } = group.requests;
  const bytes = new Uint8Array(requests.length * MESSAGE_BYTES);
  for (const [index, request] of requests.entries()) {
    const withPasid = request.pasid >= 0;
    iommuHwptPgfault.patch(
      bytes,
      {
        flags: (withPasid ? IOMMU_PGFAULT_FLAGS_PASID_VALID : 0) | (request.last ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0),
        dev_id: group.deviceId,
        pasid: withPasid ? request.pasid : 0,
        grpid: request.group,
        perm: request.permissions,
        addr: request.address,
        cookie,
      },
      index * MESSAGE_BYTES,
    );
  }
  return bytes;
}

export function faultQueueAlloc(command: IommufdCommand): number {
  const request = iommuFaultAlloc.decode(command.bytes);
  const { call, context } = command;
  if (request.flags !== 0) return -EOPNOTSUPP;
  if (context.environment.injector.allocation("event file")) return -ENOMEM;
  const queue = new FaultQueue(context);
  const created = command.create(queue);
  if (created < 0) return created;
  const fd = queue.openFile("anon_inode:[iommufd-pgfault]", call);
  if (fd < 0) return fd;
  iommuFaultAlloc.patch(command.bytes, { out_fault_id: queue.id, out_fault_fd: fd });
  const result = command.respond();
  if (result < 0) call.descriptors.cancel(fd);
  else call.descriptors.install(fd, queue.file!, command.address + 12n);
  return result;
}
