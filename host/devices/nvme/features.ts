// Features of the controller (NVMe 1.4 §5.21.1): current and default values of those it has; none can be saved. What a value
// means is the business of who asks (arbitration, write cache, events …); Interrupt Coalescing is kept but not acted on: when to
// signal within its thresholds is a recommendation (§5.21.1.8), and a model whose time is virtual gains nothing by waiting.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import {
  FEATURE_ARBITRATION,
  FEATURE_ASYNCHRONOUS_EVENTS,
  FEATURE_ERROR_RECOVERY,
  FEATURE_INTERRUPT_COALESCING,
  FEATURE_INTERRUPT_VECTOR,
  FEATURE_NUMBER_OF_QUEUES,
  FEATURE_POWER_MANAGEMENT,
  FEATURE_TEMPERATURE_THRESHOLD,
  FEATURE_VOLATILE_WRITE_CACHE,
  FEATURE_WRITE_ATOMICITY,
  INVALID_FIELD,
  SUCCESS,
} from "./commands.ts";
import { RECOMMENDED_ARBITRATION_BURST, WARNING_TEMPERATURE } from "./identify.ts";

interface Feature {
  readonly initial: number;
  /** Bits that Set Features may set; a value with others is refused. */
  readonly bits: number;
  /** Applies to a namespace rather than the controller. */
  readonly perNamespace?: boolean;
}

/** Features that are one value. */
const FEATURES: Readonly<Record<number, Feature>> = {
  // Arbitration burst 2^3 commands. Weights are kept though only round robin is offered (CAP.AMS 0).
  [FEATURE_ARBITRATION]: { initial: RECOMMENDED_ARBITRATION_BURST, bits: 0xffffff07 },
  // One power state, workload hint.
  [FEATURE_POWER_MANAGEMENT]: { initial: 0, bits: 0xe0 },
  // Time limited error recovery; no deallocated-block errors (NSFEAT).
  [FEATURE_ERROR_RECOVERY]: { initial: 0, bits: 0xffff, perNamespace: true },
  [FEATURE_VOLATILE_WRITE_CACHE]: { initial: 1, bits: 1 },
  [FEATURE_NUMBER_OF_QUEUES]: { initial: 0, bits: 0xffffffff },
  [FEATURE_INTERRUPT_COALESCING]: { initial: 0, bits: 0xffff },
  [FEATURE_WRITE_ATOMICITY]: { initial: 0, bits: 1 },
  // Critical warnings of the health log.
  [FEATURE_ASYNCHRONOUS_EVENTS]: { initial: 0, bits: 0xff },
};

/** Capabilities that Get Features with select 3 tells (§5.11.1): changeable, namespace-specific. */
const CHANGEABLE = 4;
const NAMESPACE_SPECIFIC = 2;

export const SELECT_CURRENT = 0;
export const SELECT_DEFAULT = 1;
export const SELECT_SAVED = 2;
export const SELECT_CAPABILITIES = 3;

const COALESCING_DISABLE = 1 << 16;
const UNDER_TEMPERATURE = 1;

export class Features implements Stateful {
  /** Result of the last `get`. */
  result = 0; // not state: read at once
  readonly #values = new Map<number, number>();
  readonly #vectors: Uint32Array;
  /** Over and under temperature thresholds. */
  readonly #thresholds = new Uint16Array(2);
  readonly #numberOfQueues: number;

  /** `vectors`: interrupt vectors of the function. `ioQueues`: I/O queue pairs that it gives. */
  constructor(vectors: number, ioQueues: number) {
    this.#vectors = new Uint32Array(vectors);
    this.#numberOfQueues = (ioQueues - 1) | ((ioQueues - 1) << 16);
    this.reset();
  }

  reset(): void {
    for (const [id, { initial }] of Object.entries(FEATURES)) this.#values.set(Number(id), initial);
    this.#values.set(FEATURE_NUMBER_OF_QUEUES, this.#numberOfQueues);
    this.#vectors.forEach((_, vector) => {
      this.#vectors[vector] = vector;
    });
    this.#thresholds[0] = WARNING_TEMPERATURE;
    this.#thresholds[UNDER_TEMPERATURE] = 0;
  }

  value(feature: number): number {
    return this.#values.get(feature)!;
  }

  /** True for a feature that the controller has. */
  static has(feature: number): boolean {
    return feature in FEATURES || feature === FEATURE_INTERRUPT_VECTOR || feature === FEATURE_TEMPERATURE_THRESHOLD;
  }

  /** Get Features: status; the value is left in `result`. `dword11` chooses among thresholds and vectors. */
  get(feature: number, select: number, dword11: number): number {
    this.result = 0;
    const single = FEATURES[feature];
    if (!Features.has(feature) || select > SELECT_CAPABILITIES) return INVALID_FIELD;
    if (select === SELECT_CAPABILITIES) {
      this.result = CHANGEABLE | (single?.perNamespace === true ? NAMESPACE_SPECIFIC : 0);
      return SUCCESS;
    }
    // Nothing can be saved, so the saved value is the default one (§5.11.1).
    const initial = select !== SELECT_CURRENT;
    if (feature === FEATURE_INTERRUPT_VECTOR) {
      const vector = dword11 & 0xffff;
      if (vector >= this.#vectors.length) return INVALID_FIELD;
      this.result = initial ? vector : this.#vectors[vector]!;
    } else if (feature === FEATURE_TEMPERATURE_THRESHOLD) {
      const kind = thresholdKind(dword11);
      if (kind < 0) return INVALID_FIELD;
      this.result = initial ? (kind === UNDER_TEMPERATURE ? 0 : WARNING_TEMPERATURE) : this.#thresholds[kind]!;
    } else if (feature === FEATURE_NUMBER_OF_QUEUES) {
      this.result = this.#numberOfQueues >>> 0;
    } else {
      this.result = initial ? single!.initial : this.value(feature);
    }
    return SUCCESS;
  }

  /** Set Features with value `dword11`; status. */
  set(feature: number, dword11: number): number {
    if (feature === FEATURE_INTERRUPT_VECTOR) {
      const vector = dword11 & 0xffff;
      if (vector >= this.#vectors.length || (dword11 & ~(0xffff | COALESCING_DISABLE)) !== 0) return INVALID_FIELD;
      this.#vectors[vector] = dword11;
      return SUCCESS;
    }
    if (feature === FEATURE_TEMPERATURE_THRESHOLD) {
      // Sensor 15 means all of them when setting (§5.21.1.4).
      const kind = thresholdKind(((dword11 >>> 16) & 0xf) === 0xf ? dword11 & ~0xf0000 : dword11);
      if (kind < 0) return INVALID_FIELD;
      this.#thresholds[kind] = dword11;
      return SUCCESS;
    }
    const known = FEATURES[feature];
    if (known === undefined || (dword11 & ~known.bits) !== 0) return INVALID_FIELD;
    this.#values.set(feature, dword11);
    return SUCCESS;
  }

  /** Number of I/O queues of each kind that a host asking with `dword11` gets, as Set Features returns it. */
  get numberOfQueues(): number {
    return this.#numberOfQueues >>> 0;
  }

  saveState(): StateRecord {
    return {
      values: [...this.#values].map(([feature, value]) => ({ feature, value })),
      vectors: bytesOf(this.#vectors),
      thresholds: bytesOf(this.#thresholds),
    };
  }

  restoreState(state: StateReader): void {
    this.reset();
    for (const saved of state.records("values")) {
      const feature = saved.number("feature");
      if (!this.#values.has(feature)) saved.fail("feature", `${feature} is none of the controller's`);
      this.#values.set(feature, saved.number("value"));
    }
    state.memory("vectors", this.#vectors);
    state.memory("thresholds", this.#thresholds);
  }
}

/** 0 over, 1 under the composite temperature; -1 for a sensor that does not exist. */
function thresholdKind(dword11: number): number {
  const sensor = (dword11 >>> 16) & 0xf;
  const kind = (dword11 >>> 20) & 3;
  return sensor === 0 && kind <= UNDER_TEMPERATURE ? kind : -1;
}
