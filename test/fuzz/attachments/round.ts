// One round of `nestbox fuzz attachments`: two owners, five functions behind two IOMMUs, and a few hundred steps of whatever moves an
// attachment. After each step the model (model.ts) says what every device may reach and is owed, and every translation that a device
// has kept is used: nothing may land where it says nothing may.

import * as I from "../../../host/uapi/iommufd.ts";
import * as X from "../../../host/uapi/vfio.ts";
import { RAM_GPA } from "../../host/kernel/guest.ts";
import { name } from "../../host/kernel/machine.ts";
import { PASIDS } from "./judge.ts";
import type { NestedWish } from "./kinds.ts";
import * as M from "./model.ts";
import { GUEST_RAM, HOT, HOT_FRAMES, makeOwner, OWNER_PAGES, type Owner, STAGES } from "./owner.ts";
import { RoundWorld } from "./round-world.ts";
import { newProber, type Place } from "./world.ts";

const GUEST_IDS = 0x10n;
/** Page-request group indexes in use: few, so that they meet. */
const GROUPS = 2;

export class Round extends RoundWorld {
  /** What the round did, for the summary. */
  readonly did = { switches: 0, "switches without memory": 0 };

  constructor(seed: number) {
    super(seed);
    for (const place of this.places.slice(1)) this.#plug(place);
    this.host.kernel.injector = this.injector;
    for (const label of ["left", "right"]) this.owners.push(makeOwner(this.host, this.kind, this.judge.memory, label));
  }

  /** Up to `steps` steps: what is wrong, or null. */
  run(steps: number): string | null {
    for (let step = 0; step < steps; step++) {
      this.last = "";
      let problem: string | null = null;
      // What does not apply now is no step.
      for (let tries = 0; tries < 8 && this.last === ""; tries++) problem = this.#act();
      problem ??= this.verify();
      if (problem !== null) return `step ${step}, ${this.last}: ${problem}`;
    }
    this.last = "the end";
    for (const owner of this.owners) owner.user.process.exit();
    const left = this.host.kernel.liveKinds;
    if (left.length > 0) return `left at the end: ${left.map(([kind, count]) => `${count} ${kind}`).join(", ")}`;
    return this.pages();
  }

  // --- steps ---

  #act(): string | null {
    const roll = this.dice.below(1000);
    const owner = this.dice.pick(this.owners);
    const place = this.dice.pick(this.places);
    // Half of the time the owner is one to whom the device is something.
    const own = this.owners.find((one) => one === place.device.owner) ?? owner;
    if (roll < 90) return this.#make(own);
    if (roll < 190) return this.#makeHwpt(own);
    if (roll < 400) return this.#attach(own, place);
    if (roll < 450) return this.#detach(place);
    if (roll < 560) return this.#mapOrUnmap(owner);
    if (roll < 630) return this.#bind(this.dice.chance(80) ? own : owner, place);
    if (roll < 655) return this.#close(place);
    if (roll < 770) return this.#ask(place);
    if (roll < 850) return this.#readOrAnswer(owner);
    if (roll < 890) return this.#plugOrUnplug(place);
    if (roll < 920) return this.#reset(place);
    if (roll < 950) return this.#destroy(owner);
    if (roll < 965) return this.#dirty(owner);
    if (roll < 995) return this.#flood(place);
    return this.#restart(owner);
  }

  /** IOASes, fault queues, vIOMMUs, vDEVICEs. */
  #make(owner: Owner): string | null {
    const { user, iommufd } = owner;
    if (owner.ioases.length < 2) {
      this.last = `${owner.label}: IOAS`;
      const id = user.ioas(iommufd);
      const mapped = user.map(iommufd, id, owner.ramVa, GUEST_RAM, RAM_GPA);
      if (mapped < 0) return `the guest's RAM cannot be mapped: ${mapped}`;
      const ioas: M.Ioas = { id, pages: new Map(), automatic: new Map() };
      owner.ioases.push(ioas);
      for (let i = 0; i < HOT_FRAMES; i++) {
        const page = this.dice.below(2 * OWNER_PAGES);
        if (page >= OWNER_PAGES) continue;
        const result = user.map(iommufd, id, owner.va + BigInt(page) * 4096n, 4096, BigInt(HOT + i) << 12n);
        if (result < 0) return `a page cannot be mapped: ${result}`;
        ioas.pages.set(HOT + i, `${owner.label} ${page}`);
      }
      return null;
    }
    if (owner.queues.length < 2) {
      this.last = `${owner.label}: fault queue`;
      const [id, fd] = user.faultQueue(iommufd);
      owner.queues.push({ id, fd, delivered: [], awaiting: new Map() });
      return null;
    }
    const parents = owner.hwpts.filter(({ nestParent }) => nestParent);
    const devices = this.places.filter(({ device }) => device.owner === owner).map(({ device }) => device);
    if (parents.length === 0 || devices.length === 0) return null;
    const device = this.dice.pick(devices);
    if (owner.viommus.length < 2 || (owner.viommus.length < 4 && this.dice.chance(20))) {
      const parent = this.dice.pick(parents);
      this.last = `${owner.label}: vIOMMU on ${parent.id}`;
      const id = this.call(() => user.viommu(iommufd, device.boundId, parent.id, this.kind.viommuType));
      if (id >= 0) owner.viommus.push({ id, parent, iommu: device.iommu });
      return this.agrees(id, M.takes(device, parent));
    }
    // Mostly one that has none, in a vIOMMU that it can have one in.
    const without = devices.filter(
      (one) => one.viommu === null && owner.viommus.some(({ iommu }) => iommu === one.iommu),
    );
    if (without.length > 0 && this.dice.chance(90)) {
      const chosen = this.dice.pick(without);
      return this.#makeVdevice(
        owner,
        chosen,
        this.dice.pick(owner.viommus.filter(({ iommu }) => iommu === chosen.iommu)),
      );
    }
    return this.#makeVdevice(owner, device, this.dice.pick(owner.viommus));
  }

  #makeVdevice(owner: Owner, device: M.Device, viommu: M.Viommu): string | null {
    const { user, iommufd } = owner;
    this.last = `${owner.label}: vDEVICE of ${name(device.rid)} in ${viommu.id}`;
    const result = this.call(() => user.vdevice(iommufd, viommu.id, device.boundId, GUEST_IDS + BigInt(device.rid)));
    const may = device.viommu === null && viommu.iommu === device.iommu;
    if (result >= 0) device.viommu = viommu;
    return this.agrees(result, may);
  }

  #makeHwpt(owner: Owner): string | null {
    const { user, iommufd } = owner;
    const devices = this.places.filter(({ device }) => device.owner === owner).map(({ device }) => device);
    if (devices.length === 0 || owner.ioases.length === 0 || owner.hwpts.length > 24) return null;
    const queue = owner.queues.length > 0 && this.dice.chance(60) ? this.dice.pick(owner.queues) : null;
    if (owner.viommus.length > 0 && this.dice.chance(this.nesting)) {
      const viommu = this.dice.pick(owner.viommus);
      const device = this.dice.pick(devices);
      const kind = this.dice.below(STAGES + 2);
      const [ats, pri] = [this.dice.chance(85), this.dice.chance(70)];
      const asks = ats && pri;
      const table = owner.tables[kind - 2];
      this.last = `${owner.label}: nested HWPT ${kind} on ${viommu.id}`;
      const wish: NestedWish = { stage: table ?? (kind === 0 ? "blocked" : "bypass"), ats, pri: asks };
      const options = {
        type: this.kind.nestedType,
        data: table?.data(wish) ?? this.kind.plain(wish),
        ...(queue === null ? {} : { fault: queue.id }),
      };
      const id = this.call(() => user.hwpt(iommufd, device.boundId, viommu.id, options));
      if (id >= 0) {
        const stage = kind === 0 ? "blocked" : kind === 1 ? "bypass" : owner.stages[kind - 2]!;
        const { ioas } = viommu.parent;
        const nested: M.Nested = { viommu, stage, ats, pri: asks };
        owner.hwpts.push({
          id,
          ioas,
          iommu: viommu.iommu,
          forPasids: false,
          nestParent: false,
          logs: false,
          queue,
          written: new Set(),
          nested,
        });
      }
      return this.agrees(id, device.iommu === viommu.iommu);
    }
    const ioas = this.dice.pick(owner.ioases);
    const nestParent = this.dice.chance(owner.hwpts.some((one) => one.nestParent) ? 15 : this.nesting);
    const forPasids = !nestParent && this.dice.chance(70);
    const logs = this.dice.chance(40);
    const takes = nestParent ? null : queue;
    const flags =
      (nestParent ? I.IOMMU_HWPT_ALLOC_NEST_PARENT : 0) |
      (forPasids ? I.IOMMU_HWPT_ALLOC_PASID : 0) |
      (logs ? I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0);
    this.last = `${owner.label}: HWPT with flags ${flags} of IOAS ${ioas.id}`;
    const options = takes === null ? { flags } : { flags, fault: takes.id };
    const { boundId, iommu, rules } = this.dice.pick(devices);
    const id = this.call(() => user.hwpt(iommufd, boundId, ioas.id, options));
    if (id >= 0) {
      owner.hwpts.push({
        id,
        ioas,
        iommu,
        forPasids,
        nestParent,
        logs,
        queue: takes,
        written: new Set(),
        nested: null,
      });
    }
    return this.agrees(id, rules.parentsLog || !(nestParent && logs));
  }

  #attach(owner: Owner, { device, fd }: Place): string | null {
    if (device.owner !== owner || fd < 0 || owner.hwpts.length === 0) return null;
    const pasid = device.pasid && this.dice.chance(50) ? this.dice.pick(PASIDS) : M.NO_PASID;
    const slot = device.group.slots.get(pasid);
    const replacing = slot?.devices.has(device) === true;
    const fitting = owner.hwpts.filter((one) => M.mayAttach(device, pasid, one, replacing));
    const wish = this.dice.chance(5)
      ? null
      : this.dice.pick(fitting.length > 0 && this.dice.chance(80) ? fitting : owner.hwpts);
    if (wish === null && pasid !== M.NO_PASID) return null;
    const ioas = wish === null ? this.dice.pick(owner.ioases) : null;
    const fresh = (of: M.Ioas): M.Hwpt => ({
      ...{
        id: 0,
        ioas: of,
        iommu: device.iommu,
        forPasids: false,
        nestParent: false,
        logs: false,
        queue: null,
        written: new Set(),
        nested: null,
      },
    });
    const one = device.rules.onePerIommu ? device.iommu : 0;
    const hwpt = wish ?? ioas!.automatic.get(one) ?? fresh(ioas!);
    this.last = `${name(device.rid)}.${pasid} ${replacing ? "replaces by" : "attaches to"} ${wish?.id ?? `IOAS ${ioas!.id}`}`;
    const may = M.mayAttach(device, pasid, hwpt, replacing);
    const values = { flags: pasid === M.NO_PASID ? 0 : X.VFIO_DEVICE_ATTACH_PASID, pasid: Math.max(pasid, 0) };
    const { user } = owner;
    const result = this.call(() => {
      const reply = user.call(fd, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, {
        ...values,
        pt_id: wish?.id ?? ioas!.id,
      });
      return reply.result < 0 ? reply.result : reply.pt_id;
    }, 40);
    if (result >= 0) this.did.switches++;
    else if (this.injected) this.did["switches without memory"]++;
    if (result >= 0) {
      const before = slot?.hwpt;
      if (ioas !== null) {
        hwpt.id = result;
        ioas.automatic.set(one, hwpt);
      }
      M.attached(device, pasid, hwpt);
      this.#dropAutomatic(before);
    }
    return this.agrees(result, may);
  }

  #dropAutomatic(hwpt: M.Hwpt | undefined): void {
    if (hwpt === undefined || M.isAttached(this.groups, hwpt)) return;
    for (const [iommu, automatic] of hwpt.ioas.automatic) if (automatic === hwpt) hwpt.ioas.automatic.delete(iommu);
  }

  #detach({ device, fd }: Place): string | null {
    const owner = this.owners.find((one) => one === device.owner);
    if (owner === undefined || fd < 0) return null;
    const pasid = device.pasid && this.dice.chance(50) ? this.dice.pick(PASIDS) : M.NO_PASID;
    this.last = `${name(device.rid)}.${pasid} detaches`;
    const values = { flags: pasid === M.NO_PASID ? 0 : X.VFIO_DEVICE_DETACH_PASID, pasid: Math.max(pasid, 0) };
    const result = this.call(
      () => owner.user.call(fd, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, values).result,
    );
    const before = device.group.slots.get(pasid)?.hwpt;
    M.detached(device, pasid);
    this.#dropAutomatic(before);
    return result === 0 ? null : `said ${result}`;
  }

  #mapOrUnmap(owner: Owner): string | null {
    if (owner.ioases.length === 0) return null;
    const ioas = this.dice.pick(owner.ioases);
    const frame = HOT + this.dice.below(HOT_FRAMES);
    const { user, iommufd } = owner;
    const iova = BigInt(frame) << 12n;
    if (ioas.pages.has(frame) && this.dice.chance(55)) {
      this.last = `${owner.label}: unmap 0x${frame.toString(16)} of IOAS ${ioas.id}`;
      const result = this.call(() => user.unmap(iommufd, ioas.id, iova, 4096n));
      if (result === 0) {
        ioas.pages.delete(frame);
        for (const one of owner.hwpts) if (one.ioas === ioas) one.written.delete(frame);
      }
      return this.agrees(result, true);
    }
    const page = this.dice.below(OWNER_PAGES);
    this.last = `${owner.label}: map 0x${frame.toString(16)} of IOAS ${ioas.id}`;
    const result = this.call(() => user.map(iommufd, ioas.id, owner.va + BigInt(page) * 4096n, 4096, iova));
    const may = !ioas.pages.has(frame);
    if (result === 0) ioas.pages.set(frame, `${owner.label} ${page}`);
    return this.agrees(result, may);
  }

  #bind(owner: Owner, place: Place): string | null {
    const { device } = place;
    if (place.fd >= 0 || !device.plugged || !device.known) return null;
    const node = this.host.vfio.nodeOf(name(device.rid));
    if (node === null) return "its node is missing";
    this.last = `${owner.label} binds ${name(device.rid)}`;
    const { user } = owner;
    const fd = user.open(node);
    if (fd < 0) return `open: ${fd}`;
    const other = M.ownerOf(device.group);
    const id = this.call(() => user.bind(fd, owner.iommufd));
    if (id < 0) user.process.close(fd);
    else {
      place.fd = fd;
      device.owner = owner;
      device.boundId = id;
    }
    return this.agrees(id, other === null || other === owner);
  }

  #close(place: Place): string | null {
    const owner = this.owners.find((one) => one === place.device.owner);
    if (owner === undefined || place.fd < 0) return null;
    this.last = `${name(place.device.rid)} is closed`;
    this.call(() => owner.user.process.close(place.fd));
    this.#closed(place);
    return null;
  }

  #closed(place: Place): void {
    const { device } = place;
    for (const [pasid, { hwpt }] of [...device.group.slots]) {
      M.detached(device, pasid);
      this.#dropAutomatic(hwpt);
    }
    place.fd = -1;
    device.owner = null;
    device.viommu = null;
    if (!device.plugged) this.#gone(place);
  }

  /** The kernel has let a function go that was pulled out. */
  #gone({ device }: Place): void {
    M.endRequestsOf(device, this.#queues);
    device.known = false;
    device.stranded = false;
    device.due = [];
  }

  get #queues(): M.Queue[] {
    return this.owners.flatMap(({ queues }) => queues);
  }

  #plug(place: Place): string | null {
    const { device } = place;
    const { slots } = device.group;
    const may = [...slots].every(
      ([pasid, { hwpt }]) => (pasid !== M.NO_PASID && !device.pasid) || M.takes(device, hwpt),
    );
    place.prober = newProber(device);
    this.call(() => {
      this.host.root.plug(device.rid, place.prober, this.host.iommus[device.iommu]!);
      return 0;
    }, 30);
    device.plugged = true;
    device.known = this.host.kernel.pci.device(name(device.rid))!.iommuDevice !== null;
    const problem = this.agrees(device.known ? 0 : -1, may);
    if (problem !== null || !device.known) return problem;
    const bound = this.host.kernel.pci.bind(name(device.rid), "vfio-pci");
    return bound < 0 ? `vfio-pci says ${bound}` : null;
  }

  #plugOrUnplug(place: Place): string | null {
    const { device } = place;
    if (!device.plugged) {
      // The id is taken for as long as somebody has the old function open.
      if (device.known) return null;
      this.last = `${name(device.rid)} is plugged in`;
      return this.#plug(place);
    }
    this.last = `${name(device.rid)} is pulled out`;
    this.call(() => {
      this.host.root.unplug(device.rid);
      return 0;
    });
    device.plugged = false;
    device.due = [];
    if (place.fd < 0) this.#gone(place);
    else if (this.dice.chance(50)) return this.#close(place);
    return null;
  }

  #reset(place: Place): string | null {
    const { device, fd } = place;
    const owner = this.owners.find((one) => one === device.owner);
    if (owner === undefined || fd < 0 || !device.plugged) return null;
    this.last = `${name(device.rid)} is reset`;
    const result = this.call(() => owner.user.process.ioctl(fd, X.VFIO_DEVICE_RESET, 0n));
    if (device.ats) {
      M.endRequestsOf(device, this.#queues);
      const requester = device.group.slots.get(M.NO_PASID);
      device.stranded = requester !== undefined && !M.takes(device, requester.hwpt);
    }
    return result === 0 ? null : `said ${result}`;
  }

  #destroy(owner: Owner): string | null {
    if (owner.hwpts.length === 0) return null;
    const hwpt = this.dice.pick(owner.hwpts);
    this.last = `${owner.label} destroys HWPT ${hwpt.id}`;
    const used = M.isAttached(this.groups, hwpt) || owner.viommus.some(({ parent }) => parent === hwpt);
    const result = owner.user.destroy(owner.iommufd, hwpt.id);
    this.injected = false;
    if (result === 0) owner.hwpts.splice(owner.hwpts.indexOf(hwpt), 1);
    return this.agrees(result, !used);
  }

  /** Reads the log of one HWPT: what was written since the last time must be in it. */
  #dirty(owner: Owner): string | null {
    const logging = owner.hwpts.filter(({ logs }) => logs);
    if (logging.length === 0) return null;
    const hwpt = this.dice.pick(logging);
    const { user, iommufd } = owner;
    this.last = `${owner.label} reads the log of HWPT ${hwpt.id}`;
    const data = user.scratch + 8192n;
    for (const frame of hwpt.ioas.pages.keys()) {
      user.process.memory.bytes(data, 1)[0] = 0;
      const values = { hwpt_id: hwpt.id, iova: BigInt(frame) << 12n, length: 4096n, page_size: 4096n, data };
      const { result } = user.call(iommufd, I.IOMMU_HWPT_GET_DIRTY_BITMAP, I.iommuHwptGetDirtyBitmap, values);
      if (result < 0) return `said ${result}`;
      const reported = user.process.memory.bytes(data, 1)[0] === 1;
      if (hwpt.written.has(frame) && !reported) return `a write to 0x${frame.toString(16)} is not in it`;
    }
    hwpt.written.clear();
    return null;
  }

  #restart(owner: Owner): string | null {
    this.last = `${owner.label} ends`;
    this.call(() => {
      owner.user.process.exit();
      return 0;
    });
    for (const place of this.places) if (place.device.owner === owner) this.#closed(place);
    for (const queue of owner.queues) {
      for (const one of [...queue.delivered, ...queue.awaiting.values()]) M.answer(one, M.INVALID);
    }
    const index = this.owners.indexOf(owner);
    this.owners[index] = makeOwner(this.host, this.kind, this.judge.memory, `${owner.label}+`);
    return null;
  }

  // --- page requests ---

  #ask(anyone: Place): string | null {
    const allowed = this.places.filter(({ device }) => M.requestsOn(device));
    const { device, prober } = allowed.length > 0 && this.dice.chance(90) ? this.dice.pick(allowed) : anyone;
    if (!device.plugged || !device.pri || !device.ats) return null;
    prober.master();
    for (let more = 1 + this.dice.below(3); more > 0; more--) {
      const places = [M.NO_PASID, ...PASIDS, ...device.group.slots.keys(), ...device.group.slots.keys()];
      const pasid = device.pasid ? this.dice.pick(places) : M.NO_PASID;
      const group = this.dice.below(GROUPS);
      const last = this.dice.chance(45);
      const frame = 0x7000 + this.dice.below(256);
      this.last = `${name(device.rid)}.${pasid} asks for a page, group ${group}${last ? ", last" : ""}`;
      // Mostly it is taken at once; now and then it is still in the queue when the next thing happens.
      const later = this.dice.chance(25);
      if (!later) this.settle();
      this.call(
        () => {
          prober.ask(frame, pasid, group, last);
          this.pending = true;
          if (!later) this.settle();
          return 0;
        },
        later ? 0 : 10,
      );
      M.asks(device, pasid, group, last, frame, this.injected);
    }
    return null;
  }

  /** More requests than the hardware's queue has room for, all of groups that never end. */
  #flood({ device, prober }: Place): string | null {
    if (!device.plugged || !device.pri || !device.ats || !M.requestsOn(device)) return null;
    this.settle();
    this.last = `${name(device.rid)} floods`;
    prober.master();
    for (let i = 0; i < this.requestEntries + 10; i++) prober.ask(0x1, M.NO_PASID, i % GROUPS, false);
    this.settle();
    M.overflowed(
      this.places.map((place) => place.device),
      device.iommu,
    );
    return null;
  }

  #readOrAnswer(owner: Owner): string | null {
    if (owner.queues.length === 0) return null;
    const queue = this.dice.pick(owner.queues);
    const { user } = owner;
    const waiting = [...queue.awaiting];
    if (waiting.length > 0 && this.dice.chance(50)) {
      const [cookie, asked] = this.dice.pick(waiting);
      const code = this.dice.below(2);
      this.last = `${owner.label} answers cookie ${cookie} of queue ${queue.id}`;
      user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie, code }));
      const result = user.process.write(queue.fd, user.scratch, 8, -1n);
      queue.awaiting.delete(cookie);
      M.answer(asked, code);
      return result === 8 ? null : `said ${result}`;
    }
    this.settle();
    this.last = `${owner.label} reads queue ${queue.id}`;
    const bytes = user.readAll(queue.fd);
    let at = 0;
    for (const asked of queue.delivered) {
      let cookie = 0;
      for (const [index, address] of asked.addresses.entries()) {
        if (at >= bytes.length) return `a request of ${name(asked.device.rid)} is missing`;
        const got = I.iommuHwptPgfault.decode(bytes, at);
        at += I.iommuHwptPgfault.bytes;
        const last = index === asked.addresses.length - 1;
        const flags =
          (asked.pasid === M.NO_PASID ? 0 : I.IOMMU_PGFAULT_FLAGS_PASID_VALID) |
          (last ? I.IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0);
        if (got.addr !== BigInt(address) << 12n || got.grpid !== asked.group || got.flags !== flags)
          return `0x${got.addr.toString(16)} of group ${got.grpid} (flags ${got.flags}) came, not 0x${address.toString(16)}000 of ${asked.group} (${flags})`;
        if (asked.pasid !== M.NO_PASID && got.pasid !== asked.pasid) return `PASID ${got.pasid}, not ${asked.pasid}`;
        if (!asked.names.includes(got.dev_id)) return `it came from ${got.dev_id}, not from ${asked.names}`;
        cookie = got.cookie;
      }
      if (queue.awaiting.has(cookie)) return `cookie ${cookie} twice`;
      queue.awaiting.set(cookie, asked);
    }
    queue.delivered = [];
    return at === bytes.length ? null : `${bytes.length - at} bytes more than were asked for`;
  }
}
