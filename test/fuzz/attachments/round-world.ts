// What a round of `nestbox fuzz attachments` stands on: its world, drawn from the seed; calls in which an allocation may fail; and what must hold after
// every step.

import { type Injector, NO_INJECTION } from "../../../host/kernel/inject.ts";
import type { Machine } from "../../host/kernel/machine.ts";
import { Dice } from "./dice.ts";
import { Judge } from "./judge.ts";
import type { Kind } from "./kinds.ts";
import type * as M from "./model.ts";
import type { Owner } from "./owner.ts";
import { makeWorld, type Place } from "./world.ts";

export abstract class RoundWorld {
  readonly judge: Judge;
  protected readonly dice: Dice;
  /** Percent of HWPTs that are a guest's: rounds lean towards nesting or towards PASIDs, which exclude each other in a group. */
  protected readonly nesting: number;
  protected readonly kind: Kind;
  protected readonly host: Machine;
  protected readonly places: Place[];
  protected readonly groups: M.Group[];
  protected readonly owners: Owner[] = [];
  protected readonly requestEntries: number;
  /** A page request may still be in a hardware queue. */
  protected pending = false;
  /** An allocation of the last call failed on purpose. */
  protected injected = false;
  #allocations = 0;
  #fails = 0;
  /** The step that is being done, in words. */
  last = "";

  constructor(seed: number) {
    this.dice = new Dice(seed);
    this.judge = new Judge(this.dice);
    this.nesting = this.dice.pick([10, 50, 90]);
    const { kind, host, places, groups, requestEntries } = makeWorld(this.dice);
    this.kind = kind;
    this.host = host;
    this.places = places;
    this.groups = groups;
    this.requestEntries = requestEntries;
  }

  // --- chance ---

  protected readonly injector: Injector = {
    ...NO_INJECTION,
    allocation: () => {
      if (++this.#allocations !== this.#fails) return false;
      this.injected = true;
      return true;
    },
  };

  /** Lets interrupts come. */
  protected settle(): void {
    this.host.run(50_000);
    this.pending = false;
  }

  /** Runs a call in which perhaps one allocation fails; not while that might be a page request's. */
  protected call(run: () => number, percent = 25): number {
    this.#allocations = 0;
    this.injected = false;
    this.#fails = !this.pending && this.dice.chance(percent) ? 1 + this.dice.below(this.dice.chance(60) ? 3 : 6) : -1;
    const result = run();
    this.#fails = -1;
    return result;
  }

  /** A result that the model does not agree with; a failure that was injected is no success and no surprise. */
  protected agrees(result: number, may: boolean): string | null {
    if (result >= 0) return may ? null : `said ${result}, which must not be`;
    return may && !this.injected ? `said ${result}, which must work` : null;
  }

  // --- what must hold ---

  protected verify(): string | null {
    if (this.dice.chance(90)) this.settle();
    else if (this.pending) return null;
    for (const { device, prober } of this.places) {
      const problem = this.judge.of(device, prober);
      if (problem !== null) return problem;
    }
    return this.pages();
  }

  protected pages(): string | null {
    for (const { label, ram, ramBefore } of this.owners) {
      if (Buffer.compare(ram.bytes, ramBefore) !== 0) return `somebody wrote to the page tables of ${label}`;
    }
    return this.judge.pages();
  }
}
