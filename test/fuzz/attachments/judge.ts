// What must hold after a step: each function has been told what it was owed and nothing else, its services are on as the model says, and
// its DMA - anew, and by every translation that it has kept - lands where the model says or nowhere.

import { name } from "../../host/kernel/machine.ts";
import type { Dice } from "./dice.ts";
import * as M from "./model.ts";
import { HOT, HOT_FRAMES, IOVA, type Memory, STAGE_FRAMES } from "./owner.ts";
import type { Prober } from "./prober.ts";

export const PASIDS = [1, 5, 77];

export class Judge {
  readonly memory: Memory = new Map();
  /** What was looked at, for the summary. */
  readonly did = { writes: 0, landed: 0, "by kept translations": 0, "groups answered": 0 };
  readonly #dice: Dice;
  #stamp = 0;

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  /** The first violation, or null. */
  of(device: M.Device, prober: Prober): string | null {
    const { responses } = prober;
    prober.responses = [];
    const { due } = device;
    device.due = [];
    if (!device.plugged) return null;
    prober.master();
    const problem =
      this.#answers(due, responses) ??
      services(device, prober) ??
      this.#kept(device, prober) ??
      this.#anew(device, prober);
    return problem === null ? null : `${name(device.rid)} ${problem}`;
  }

  #answers(due: M.Device["due"], responses: Prober["responses"]): string | null {
    this.did["groups answered"] += due.length;
    for (const { group, code } of due) {
      const at = responses.findIndex((one) => one.group === group && (code < 0 ? one.code !== 0 : one.code === code));
      if (at < 0) return `got no answer ${code} for group ${group}`;
      responses.splice(at, 1);
    }
    return responses.length === 0 ? null : `got an answer for group ${responses[0]!.group} that nobody gave`;
  }

  #kept(device: M.Device, prober: Prober): string | null {
    for (const kept of prober.kept) {
      this.did["by kept translations"]++;
      const problem = this.#land(device, kept.pasid, kept.pfn, "a kept translation of", (stamp) =>
        prober.writeKept(kept, stamp),
      );
      if (problem !== null) return problem;
    }
    return null;
  }

  #anew(device: M.Device, prober: Prober): string | null {
    const dice = this.#dice;
    const slots = [...device.group.slots.keys()];
    for (let i = 0; i < 3; i++) {
      const pasid = slots.length > 0 && dice.chance(70) ? dice.pick(slots) : dice.pick([M.NO_PASID, ...PASIDS]);
      const frame = dice.chance(50) ? HOT + dice.below(HOT_FRAMES) : IOVA + dice.below(STAGE_FRAMES);
      const problem = this.#land(device, pasid, frame, "", (stamp) => prober.write(frame, pasid, stamp));
      if (problem !== null) return problem;
      if (device.ats) prober.translate(frame, pasid);
    }
    return null;
  }

  #land(
    device: M.Device,
    pasid: number,
    frame: number,
    what: string,
    write: (stamp: Uint8Array) => boolean,
  ): string | null {
    // Nobody's group: the default domain, where addresses are the host's own.
    if (device.known && M.ownerOf(device.group) === null) return null;
    const stamp = ++this.#stamp;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, stamp, true);
    const page = M.reach(device, pasid, frame);
    const done = write(bytes);
    this.did.writes++;
    const where = `${what} 0x${frame.toString(16)}, PASID ${pasid}`;
    if (page === null) return done ? `wrote through ${where}, where it reaches nothing` : null;
    if (!done) return `was refused ${where}, which is ${page}`;
    this.did.landed++;
    const expected = this.memory.get(page)!;
    expected.stamp = stamp;
    M.wrote(device, pasid, frame);
    if (expected.bytes.getUint32(0, true) !== stamp) return `wrote through ${where} somewhere else than ${page}`;
    return null;
  }

  /** Every page holds what was last written to it. */
  pages(): string | null {
    for (const [page, { bytes, stamp }] of this.memory) {
      const found = bytes.getUint32(0, true);
      if (found !== stamp) return `page ${page} holds ${found}, not ${stamp}: somebody wrote to it`;
    }
    return null;
  }
}

function services(device: M.Device, prober: Prober): string | null {
  if (prober.priEnabled !== M.requestsOn(device)) return `has page requests ${prober.priEnabled ? "on" : "off"}`;
  return prober.atsEnabled === M.translationsOn(device) ? null : `has ATS ${prober.atsEnabled ? "on" : "off"}`;
}
