/**
 * A request from start to end (§3.3 to §3.8, §4.2): which structures it meets in which order, and what becomes of its faults (§7.1, §7.2).
 */
import type { Choose } from "../latitude.ts";
import { bits, features, type Identification, inInterruptRange, type Programming } from "./capabilities.ts";
import { faultRecord } from "./fault-record.ts";
import { firstStage } from "./first-stage.ts";
import { type AtsCompletion, FAULTS, Fault, type Outcome, type Request, type Result, SilentBlock } from "./outcome.ts";
import { type PasidEntry, pasidEntry } from "./pasid-entry.ts";
import { legacyContext, type Run, scalableContext } from "./root-and-context.ts";
import { LEGACY, type Rights, SCALABLE, type SecondStage, secondStage } from "./second-stage.ts";
import type { Tables } from "./tables.ts";

const ALL: Rights = { r: true, w: true };

/** What both stages gave. */
interface Found {
  readonly address: bigint;
  readonly rights: Rights;
  readonly span: bigint;
}

export function translate(
  identification: Identification,
  programming: Programming,
  tables: Tables,
  request: Request,
  choose: Choose,
): Outcome {
  const f = features(identification);
  const run: Run = { f, tables, request, choose, FPD: false };
  try {
    const found = head(run, programming);
    // D for a write that a translation request is not granted is not owed, and nothing is if it is granted nothing.
    if (request.kind === "translation") {
      const any = found.rights.r || found.rights.w;
      const updates = tables.updates.map((update) =>
        any && !(update.dirty && !found.rights.w) ? update : { ...update, required: false },
      );
      return { result: completion(run, "success", found), record: null, updates };
    }
    return { result: { kind: "translated", address: found.address }, record: null, updates: tables.updates };
  } catch (stop) {
    if (!(stop instanceof Fault) && !(stop instanceof SilentBlock)) throw stop;
    // Walks may be speculative: what was set on the way to a fault may be found set or not.
    const updates = tables.updates.map((update) => ({ ...update, required: false }));
    return { ...answer(run, stop), updates };
  }
}

function head(run: Run, programming: Programming): Found {
  const { f, request, choose } = run;
  const { RTADDR } = programming;
  const here: Found = { address: request.address, rights: ALL, span: 1n << f.HAW };
  if (!programming.TES) {
    if (request.kind === "untranslated" && request.pasid === null) {
      if (request.address >> f.HAW !== 0n && choose(2, "§3.3: TES=0 and an address beyond the HAW") === 1)
        throw new SilentBlock();
      return here;
    }
    // From memory: rejected. No source says whether by a record.
    throw request.kind === "translation" || choose(2, "§3.3: TES=0 and a PASID or a translated request") === 0
      ? new SilentBlock()
      : new Fault(0x30);
  }
  const TTM = bits(RTADDR, 11n, 10n);
  if (TTM === 2n || (TTM === 3n && !f.ADMS) || (TTM === 1n && !f.SMTS)) throw new Fault(0x30);
  if (TTM === 3n) throw new Fault(0x33);
  if (TTM === 0n) return legacy(run, RTADDR);
  return scalable(run, RTADDR);
}

function legacy(run: Run, RTADDR: bigint): Found {
  const { f, request, tables, choose } = run;
  if (request.pasid !== null) throw new Fault(0x31);
  const context = legacyContext(run, RTADDR);
  if (request.kind === "translated") return translated(run, 0x04);
  if (context.TT === 2n) {
    if (request.address >> f.HAW !== 0n) throw new Fault(0x04);
    if (inInterruptRange(request.address)) throw new Fault(0x0e);
    return { address: request.address, rights: ALL, span: 1n << f.HAW };
  }
  const stage: SecondStage = {
    ...{ f, tables, choose, DID: context.DID, root: context.SSPTPTR, levels: context.levels, width: context.width },
    flags: false,
    snooped: true,
  };
  const right = missingRight(run, { write: 0x05, read: 0x06 }, { r: false, w: false });
  const leaf = secondStage(stage, LEGACY, request.address, right);
  const rights = granted(run, leaf.rights);
  check(run, rights, { write: 0x05, read: 0x06 });
  leaf.finish("none");
  if (inInterruptRange(leaf.address)) throw new Fault(0x0e);
  return { address: leaf.address, rights, span: leaf.span };
}

function scalable(run: Run, RTADDR: bigint): Found {
  const { f, request, tables, choose } = run;
  const context = scalableContext(run, RTADDR);
  if (request.kind === "translated") return translated(run, 0x83);
  const pasid = request.pasid ?? context.RID_PASID;
  const entry = pasidEntry(run, context, pasid);
  const explicit = request.pasid !== null;
  const supervisor = explicit ? request.privileged : context.RID_PRIV;
  if (supervisor && !entry.SRE) {
    // §3.6.1 says so of a PASID's requests through the first stage; of others no source does.
    const sure = explicit && (entry.PGTT === "first" || entry.PGTT === "nested");
    if (sure || choose(2, "§9.6: SRE of RID_PRIV, or without a first stage") === 0) throw new Fault(0x5d);
  }
  const found = stages(run, entry, pasid, supervisor);
  if (inInterruptRange(found.address)) throw new Fault(0x87);
  return found;

  function stages(run: Run, entry: PasidEntry, pasid: bigint, supervisor: boolean): Found {
    const second: SecondStage = {
      ...{ f, tables, choose, DID: entry.DID, root: entry.SSPTPTR, levels: entry.levels, width: entry.width },
      flags: entry.SSADE,
      snooped: entry.PWSNP,
    };
    switch (entry.PGTT) {
      case "pass-through":
        if (request.address >> f.HAW !== 0n) throw new Fault(0x83);
        return { address: request.address, rights: ALL, span: 1n << f.HAW };
      case "second":
        return final(run, second, request.address, ALL);
      default: {
        const first = firstStage(
          { f, tables, choose, entry, pasid, supervisor, second: entry.PGTT === "nested" ? second : null },
          request.address,
        );
        return throughFirst(run, first, entry.PGTT === "nested" ? second : null);
      }
    }
  }
}

/** §4.2.4: a translated request's address is used as it is; what becomes of one that the host has not, no source says. `beyond`: its fault reason if any. */
function translated({ f, request, choose }: Run, beyond: number): Found {
  if (request.address >> f.HAW !== 0n) {
    const way = choose(3, "§4.2.4: a translated address beyond the HAW");
    if (way === 1) throw new Fault(beyond);
    if (way === 2) throw new SilentBlock();
  }
  return { address: request.address, rights: ALL, span: 1n << f.HAW };
}

/** Rights of the first stage, flags of its leaf, then the second stage; in which order is open (§3.8). */
function throughFirst(run: Run, first: ReturnType<typeof firstStage>, second: SecondStage | null): Found {
  const { request, choose } = run;
  const permitted = granted(run, first.rights);
  const write = request.kind === "translation" ? request.access === "write" && permitted.w : request.access !== "read";
  const rightsFault = firstStageFault(run, first.rights);
  /** A translation request that is granted nothing owes no flags, though the leaf may be marked accessed. */
  const finish = () => first.finish(write && rightsFault === null);
  if (second === null) {
    if (rightsFault !== null) {
      if (choose(2, "§3.8: A before the rights are checked") === 0) finish();
      throw rightsFault;
    }
    finish();
    return { address: first.address, rights: permitted, span: first.span };
  }
  const order = choose(rightsFault === null ? 2 : 3, "§3.8: flags, rights and the second stage of the leaf");
  if (order === 2) throw rightsFault;
  if (order === 0) finish();
  if (rightsFault !== null && order === 0) throw rightsFault;
  const found = final(run, second, first.address, permitted);
  if (order === 1) finish();
  if (rightsFault !== null) throw rightsFault;
  return { ...found, span: found.span < first.span ? found.span : first.span };
}

/** U/S, then R/W (§3.6.2). */
function firstStageFault({ request }: Run, rights: Rights & { readonly user: boolean }): Fault | null {
  if (!rights.user) return new Fault(0x81);
  if (request.kind === "untranslated" && request.access !== "read" && !rights.w) return new Fault(0x85);
  return null;
}

/** The second stage of the address that is accessed; `above`: what the first grants. */
function final(run: Run, second: SecondStage, address: bigint, above: Rights): Found {
  const { request } = run;
  const right = missingRight(run, { write: 0x85, read: 0x86 }, { r: false, w: false });
  const leaf = secondStage(second, SCALABLE, address, right);
  const own = granted(run, leaf.rights);
  check(run, own, { write: 0x85, read: 0x86 });
  const rights = { r: own.r && above.r, w: own.w && above.w };
  const writes = request.kind === "translation" ? request.access === "write" : request.access !== "read";
  leaf.finish(writes && rights.w ? "request" : "none");
  return { address: leaf.address, rights, span: leaf.span };
}

/** What a translation request is granted: the right to write without NW only if it is there without marking anything dirty, or not at all. */
function granted({ request, choose }: Run, { r, w }: Rights): Rights {
  if (request.kind !== "translation" || request.access === "write" || !w) return { r, w };
  return { r, w: choose(2, "§4.1: write permission for NW=1") === 1 };
}

function check(run: Run, { r, w }: Rights, codes: { readonly write: number; readonly read: number }): void {
  const { request } = run;
  if (request.kind === "translation") {
    if (!r && !w) throw new Fault(codes.read);
    return;
  }
  const { access } = request;
  if ((access === "read" && r) || (access === "write" && w) || (access === "atomic" && r && w)) return;
  throw new Fault(missingRight(run, codes, { r, w }));
}

/** Write before read for an AtomicOp that has neither: open, no source says. */
function missingRight(
  { request: { access, kind }, choose }: Run,
  codes: { readonly write: number; readonly read: number },
  { r, w }: Rights,
): number {
  if (kind === "translation" || access === "read") return codes.read;
  if (access === "write") return codes.write;
  if (!w && !r) return [codes.write, codes.read][choose(2, "§7.1.3: an AtomicOp without both rights")]!;
  return w ? codes.read : codes.write;
}

/** Faults of a translation request that are answered with no rights and not recorded: not present, no right (§4.1.3). */
const RECOVERABLE = new Set([0x05, 0x06, 0x71, 0x79, 0x81, 0x85, 0x86]);
/** Completer Abort: structures that cannot be read or have reserved bits set. */
const ABORTED = new Set([
  ...[0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x38, 0x3a, 0x40, 0x42, 0x50, 0x52, 0x58, 0x5a],
  ...[0x70, 0x72, 0x73, 0x78, 0x7a, 0x7b],
]);
/** Unsupported Request: structures that are absent or do not allow the request. */
const UNSUPPORTED = new Set([0x01, 0x02, 0x0d, 0x30, 0x33, 0x31, 0x39, 0x41, 0x43, 0x44, 0x45, 0x46, 0x51, 0x59, 0x5b]);
/** The rest no source settles. */
const WAYS = ["none", "unsupported-request", "completer-abort"] as const;

function answer(run: Run, stop: Fault | SilentBlock): Omit<Outcome, "updates"> {
  const { request, choose } = run;
  const record = stop instanceof Fault && recorded(run, stop) ? faultRecord(run.f, request, stop.code) : null;
  if (request.kind !== "translation") return { result: { kind: "blocked" }, record };
  const nothing: Found = { address: 0n, rights: { r: false, w: false }, span: 0n };
  if (stop instanceof SilentBlock) return { result: completion(run, "unsupported-request", nothing), record };
  const { code } = stop;
  const way = RECOVERABLE.has(code)
    ? "none"
    : ABORTED.has(code)
      ? "completer-abort"
      : UNSUPPORTED.has(code)
        ? "unsupported-request"
        : WAYS[choose(3, "§4.1.3: how a translation request is refused")]!;
  if (way === "none") return { result: completion(run, "success", nothing), record: null };
  return { result: completion(run, way, nothing), record };
}

function recorded({ FPD, choose }: Run, { code }: Fault): boolean {
  const { qualified } = FAULTS.get(code)!;
  if (!FPD || qualified === false) return true;
  return qualified === "open" && choose(2, "§7.1.3: whether FPD suppresses the record") === 1;
}

function completion({ request }: Run, status: AtsCompletion["status"], { address, rights, span }: Found): Result {
  return {
    kind: "ats",
    completion: {
      status,
      ...rights,
      priv: request.pasid !== null && request.privileged,
      address,
      widest: span,
    },
  };
}
