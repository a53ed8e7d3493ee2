/**
 * Random sequences for testing caches: a valid machine, then software that changes directories, process contexts, page tables of either stage
 * and MSI tables, sends the invalidations that the change needs, or too few, or others, and translates in between.
 *
 * The software keeps to what §3.8 and §7.3 ask, as `cached-tables.ts` supposes: every PSCID (in its GSCID) has one first stage and every GSCID one
 * second stage at a time, and a switch to other tables comes with the invalidations of the context and of the tag; global pages appear only where a
 * GSCID has one first stage; the guest pages of process directories stay where they are; all sixteen entries of a NAPOT page are written together,
 * with A and D set.
 */

import { copyMemory, type Memory, word } from "../../memory.ts";
import { Random } from "../../random.ts";
import { CAPABILITY, type Capability, type Implementation } from "../implementation.ts";
import type { Command } from "../invalidation.ts";
import type { DirectoryPointer, Request } from "../outcome.ts";
import type { PageRequest } from "../page-request.ts";
import { leafBytes, SHAPES } from "../page-table-entry.ts";
import { iodirInvalDdt, iodirInvalPdt, iotinvalGvma, iotinvalVma } from "./commands.ts";
import { type Device, ENTRY, type FirstStage, GUEST, type SecondStage, tableAddress, World } from "./world.ts";

export type Step =
  | {
      readonly kind: "change";
      readonly words: readonly (readonly [bigint, bigint])[];
      /** Commands that belong to the change: software asks nothing before they are done. */
      readonly must: readonly Command[];
    }
  | { readonly kind: "invalidate"; readonly command: Command }
  | { readonly kind: "request"; readonly request: Request }
  /** The request is put to the debug interface (§5). */
  | { readonly kind: "debug"; readonly request: Request }
  | { readonly kind: "page-request"; readonly pageRequest: PageRequest };

/** How much the implementation may keep: nothing, a handful of entries of each kind, or what it likes. */
export type CacheSize = "none" | "tiny" | "default";

export interface Sequence {
  readonly caches: CacheSize;
  readonly implementation: Implementation;
  readonly ddtp: DirectoryPointer;
  /** Memory at the start. */
  readonly memory: Memory;
  readonly steps: readonly Step[];
}

/** A change of the machine, and the commands that make it known, widest last. */
interface Change {
  /** Commands without which nothing may be asked: the change took a tag from one table to another. */
  readonly must?: readonly Command[];
  readonly commands: readonly Command[];
  /** Whom to ask afterwards. */
  readonly ask: () => Request;
}

/** Half of the changes of a first stage are where the last one was, so that changes, invalidations and questions meet. */
function focused(world: World): readonly [FirstStage, bigint] {
  if (world.focus !== null && world.random.chance(50)) return world.focus;
  const first = world.random.pick(world.firsts);
  world.focus = [first, world.random.pick(first.iovas)];
  return world.focus;
}

function changeFirstStage(world: World): Change {
  const { random } = world;
  const [first, iova] = focused(world);
  const address = tableAddress(first, iova);
  const { tables } = first;
  const kind = random.below(10);
  let reach = 4096n;
  if (kind < 6) {
    // A leaf of 4 KiB or, seldom, of 64 KiB.
    const at = tables.entryAddress(address, 0);
    if (at !== null) {
      const group = at & ~0x7fn;
      if (word(world.memory, at) >> 63n === 1n)
        for (let entry = 0n; entry < 16n; entry++) world.put(group + entry * 8n, 0n);
      if (random.chance(12)) {
        const value = ((world.target(first.device) | 0xfn) << 10n) ^ (0b111n << 10n); // PPN[3:0] = 1000
        const flags = world.leafFlags(first) | ENTRY.AD | ENTRY.N;
        for (let entry = 0n; entry < 16n; entry++) world.put(group + entry * 8n, value | flags);
        reach = 0x1_0000n;
      } else if (random.chance(30)) tables.replace(address, 0, 0n);
      else tables.replace(address, 0, (world.target(first.device) << 10n) | world.leafFlags(first));
    }
  } else {
    // Above it: a 2 MiB page, an absent pointer, or a pointer to another table.
    reach = 0x20_0000n;
    const at = tables.entryAddress(address, 1);
    const superpage = (world.random.pick([0x8000n, 0x8200n, 0n]) << 10n) | (world.leafFlags(first) | ENTRY.AD);
    if (at !== null) {
      const choice = random.below(3);
      if (choice === 0) tables.replace(address, 1, superpage);
      else tables.replace(address, 1, 0n);
      if (choice === 2) {
        // The builder makes a fresh table for the pointer that is now absent.
        for (const other of first.iovas) {
          if (random.chance(60))
            tables.map(tableAddress(first, other), 0, world.target(first.device), world.leafFlags(first));
        }
      }
    }
  }
  const pscid = random.chance(60) ? first.pscid : null;
  const { gscid } = first;
  const other = iova + random.pick([0n, 0n, 0n, 4096n]);
  return {
    commands: [
      iotinvalVma(gscid, pscid, { address: other }),
      iotinvalVma(gscid, pscid, { address: other, range: supports(world, "S") ? reach * 2n : undefined }),
      iotinvalVma(gscid, pscid, { address: other, nonLeaf: supports(world, "NL") }),
      iotinvalVma(gscid, pscid),
      iotinvalVma(gscid, null),
    ],
    ask: () => askFirst(world, first, random.chance(60) ? iova : random.pick(first.iovas)),
  };
}

function supports(world: World, capability: Capability): boolean {
  return ((world.implementation.capabilities >> CAPABILITY[capability]) & 1n) === 1n;
}

function changeSecondStage(world: World): Change {
  const { random } = world;
  const second = random.pick(world.seconds);
  const { tables, gscid } = second;
  const page = GUEST.data + BigInt(random.below(18));
  let gpa = page << 12n;
  let reach = 4096n;
  const kind = random.below(10);
  if (kind < 5) {
    const at = tables.entryAddress(gpa, 0);
    const ppn = world.newPage();
    if (at !== null) tables.replace(gpa, 0, random.chance(30) ? 0n : (ppn << 10n) | world.leafFlags(null));
  } else if (kind < 7 && second.tablePages.length > 0) {
    // A first-stage table moves: its content is copied, then sometimes changed at the old place.
    const moved = random.pick(second.tablePages);
    gpa = moved << 12n;
    const old = tables.lookup(gpa);
    if (old !== null) {
      const fresh = world.newPage();
      for (let at = 0n; at < 4096n; at += 8n) {
        const value = word(world.memory, (old << 12n) + at);
        if (value !== 0n) world.put((fresh << 12n) + at, value);
      }
      tables.replace(gpa, 0, (fresh << 10n) | ENTRY.V | ENTRY.RWX | ENTRY.U | ENTRY.AD);
    }
  } else {
    reach = leafBytes(SHAPES[second.mode], 1);
    const at = tables.entryAddress(gpa, 1);
    const superpage = (random.pick([0x200n, 0x400n]) << 10n) | world.leafFlags(null) | ENTRY.AD;
    if (at !== null) {
      const choice = random.below(3);
      tables.replace(gpa, 1, choice === 0 ? superpage : 0n);
      if (choice === 2) {
        for (let other = GUEST.data; other < GUEST.data + 16n; other++) {
          if (random.chance(70)) tables.map(other << 12n, 0, world.newPage(), world.leafFlags(null));
        }
      }
    }
  }
  const users = world.firsts.filter((first) => first.gscid === gscid);
  return {
    commands: [
      iotinvalGvma(gscid, { address: gpa }),
      iotinvalGvma(gscid, { address: gpa, range: supports(world, "S") ? reach * 2n : undefined }),
      iotinvalGvma(gscid, { address: gpa, nonLeaf: supports(world, "NL") }),
      iotinvalGvma(gscid),
      iotinvalGvma(null),
    ],
    ask: () => {
      if (users.length === 0 || random.chance(20)) return askSecond(world, second, gpa);
      const first = random.pick(users);
      return askFirst(world, first, random.pick(first.iovas));
    },
  };
}

function changeDirectory(world: World): Change {
  const { random } = world;
  const device = random.pick(world.devices);
  const ask = () => askDevice(world, device);
  const toggle = (at: bigint, mask: bigint) => world.put(at, word(world.memory, at) ^ mask);
  const kind = random.below(4);
  if (kind === 0) {
    toggle(world.directoryEntry, 1n);
    return { commands: [iodirInvalDdt(device.deviceId), iodirInvalDdt(null)], ask };
  }
  if (kind === 1 && device.processContexts.length > 0) {
    const { at, processId } = random.pick(device.processContexts);
    toggle(at, random.pick([0b001n, 0b010n, 0b100n, 0b001n]));
    return {
      commands: [iodirInvalPdt(device.deviceId, processId), iodirInvalDdt(device.deviceId), iodirInvalDdt(null)],
      ask,
    };
  }
  // V, EN_ATS, EN_PRI, DTF; a reserved bit makes the context misconfigured, as EN_PRI or PRPR alone does.
  toggle(device.contextAt, random.pick([1n, 1n, 2n, 4n, 1n << 4n, 1n << 12n]));
  return { commands: [iodirInvalDdt(device.deviceId), iodirInvalDdt(null)], ask };
}

function changeInterruptFile(world: World): Change | null {
  const { random } = world;
  const device = random.pick(world.devices);
  if (device.interruptPages.length === 0) return null;
  const { gpa, at } = random.pick(device.interruptPages);
  const fresh = world.newPage();
  if (random.chance(30)) world.put(at, 0n);
  else if (random.chance(70) || !supports(world, "MSI_MRIF")) world.put(at, (fresh << 10n) | 0b111n);
  else world.put(at, (fresh << 10n) | 0b011n, (world.newPage() << 10n) | random.bits(10));
  const { gscid } = device.second!;
  return {
    commands: [iotinvalGvma(gscid, { address: gpa }), iotinvalGvma(gscid), iotinvalGvma(null)],
    ask: () => (random.chance(50) ? askSecond(world, device.second!, gpa) : askDevice(world, device)),
  };
}

/** Software moves a context to other tables under the same tag. */
function switchTables(world: World): Change {
  const { random } = world;
  const { device, at, values, commands } = random.pick(world.switches);
  const value = word(world.memory, at[0]!) === values[0] ? values[1] : values[0];
  for (const context of at) world.put(context, value);
  return { must: random.pick(commands), commands: [iodirInvalDdt(null)], ask: () => askDevice(world, device) };
}

function ask(world: World, device: Device, processId: bigint | null, iova: bigint): Request {
  const { random } = world;
  if (random.chance(device.t2gpa ? 25 : 3)) return askTranslated(world, device);
  const type = random.chance(20) ? "ats" : "untranslated";
  return {
    deviceId: device.deviceId,
    processId,
    privileged: processId !== null && random.chance(20),
    type,
    access: type === "ats" ? "read" : random.pick(["read", "read", "write", "execute"] as const),
    noWrite: type === "ats" && random.chance(50),
    executeRequested: type === "ats" && processId !== null && random.chance(50),
    // Messages go to the start of an interrupt file.
    iova: (iova + (random.chance(50) ? 0n : BigInt(random.below(1024)) * 4n)) & ((1n << 64n) - 1n),
  };
}

/** A request with an address that an earlier ATS completion could have given: a GPA under T2GPA. */
function askTranslated(world: World, device: Device): Request {
  const { random } = world;
  const page =
    device.interruptPages.length > 0 && random.chance(25)
      ? random.pick(device.interruptPages).gpa
      : (GUEST.data + BigInt(random.below(18))) << 12n;
  return {
    deviceId: device.deviceId,
    processId: null,
    privileged: false,
    type: "translated",
    access: random.pick(["read", "write", "execute"] as const),
    noWrite: false,
    executeRequested: false,
    iova: page,
  };
}

function askFirst(world: World, first: FirstStage, iova: bigint): Request {
  return ask(world, world.random.pick(first.sharers), first.processId, iova);
}

/** A GPA: by the device without a first stage, or by one without a process_id. */
function askSecond(world: World, second: SecondStage, gpa: bigint): Request {
  // Interrupt-file pages mean something to the device that has them; who shares its second stage keeps off.
  const files = gpa >> 12n >= GUEST.files;
  const sharing = world.devices.filter(
    (device) => device.second?.gscid === second.gscid && (!files || device.interruptPages.length > 0),
  );
  return ask(world, world.random.pick(sharing), null, gpa);
}

function askDevice(world: World, device: Device): Request {
  const own = world.firsts.filter((first) => first.sharers.includes(device));
  if (own.length === 0) return askSecond(world, device.second!, (GUEST.data + BigInt(world.random.below(18))) << 12n);
  const first = world.random.pick(own);
  return askFirst(world, first, world.random.pick(first.iovas));
}

/** A page request of any device: whatever else was asked before it has left its traces in the implementation, not in the answer. */
function askPage(world: World): PageRequest {
  const { random } = world;
  const processId = random.chance(50) ? random.bits(20) : null;
  const [read, write] = random.pick([
    [true, false],
    [false, true],
  ] as const);
  return {
    deviceId: random.pick(world.devices).deviceId,
    processId,
    privileged: processId !== null && random.chance(30),
    execute: processId !== null && random.chance(30),
    read,
    write,
    last: random.chance(80),
    group: random.bits(9),
    address: random.bits(40) << 12n,
  };
}

/** The sequence of a seed, with `count` changes. */
export function randomSequence(seed: number, count: number): Sequence {
  const random = new Random(seed);
  const world = new World(random);
  world.takeChanges();
  const memory: Memory = copyMemory(world.memory);
  const steps: Step[] = [];
  const request = (wanted: Request) => {
    steps.push({ kind: "request", request: wanted });
    if (random.chance(15)) steps.push({ kind: "page-request", pageRequest: askPage(world) });
  };
  // Software of most sequences works at few places, so that its questions meet its changes.
  for (let index = 0; index < 12; index++) request(askDevice(world, random.pick(world.devices)));
  for (let index = 0; index < count; index++) {
    const kind = random.below(100);
    const change =
      kind < 45
        ? changeFirstStage(world)
        : kind < 75
          ? changeSecondStage(world)
          : kind < 86
            ? changeDirectory(world)
            : kind < 93
              ? switchTables(world)
              : changeInterruptFile(world);
    if (change === null) continue;
    for (let times = random.below(3); times > 0; times--) request(change.ask());
    steps.push({ kind: "change", words: world.takeChanges(), must: change.must ?? [] });
    for (let times = random.below(3); times > 0; times--) request(change.ask());
    if (random.chance(80)) steps.push({ kind: "invalidate", command: random.pick(change.commands) });
    for (let times = 1 + random.below(3); times > 0; times--) request(change.ask());
  }
  for (const page of world.memory.pages) memory.pages.add(page);
  const caches = random.chance(35) ? "tiny" : "default";
  return { caches, implementation: world.implementation, ddtp: world.ddtp, memory, steps };
}
