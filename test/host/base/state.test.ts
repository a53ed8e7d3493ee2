import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Clock, type ClockEvent, eventKey } from "../../../host/base/clock.ts";
import {
  restoreTree,
  StateError,
  type Stateful,
  type StateReader,
  type StateRecord,
  type StateValue,
  saveTree,
} from "../../../host/base/state.ts";
import { decodeState, encodeState } from "../../../host/base/state-text.ts";

class Counter implements Stateful {
  value = 0;
  readonly parts = new Map<string, Counter>();
  saveState(): StateRecord {
    return { value: this.value };
  }
  restoreState(state: StateReader): void {
    this.value = state.number("value");
  }
  stateParts(): Iterable<readonly [string, Stateful]> {
    return this.parts;
  }
}

function tree(): Counter {
  const root = new Counter();
  root.value = 1;
  for (const [name, value] of [
    ["left", 2],
    ["right", 3],
  ] as const) {
    const part = new Counter();
    part.value = value;
    root.parts.set(name, part);
  }
  return root;
}

const record = (text: string): StateRecord => decodeState(text);

describe("a state document", () => {
  const name = fc.string().filter((text) => text !== "__proto__");
  const value: fc.Arbitrary<StateValue> = fc.letrec<{ value: StateValue }>((tie) => ({
    value: fc.oneof(
      { depthSize: "small" },
      fc.constant(null),
      fc.boolean(),
      fc.double({ noNaN: true }).map((n) => (Object.is(n, -0) ? 0 : n)),
      fc.string(),
      fc.bigInt({ min: -(2n ** 64n), max: 2n ** 64n }),
      fc.uint8Array({ maxLength: 64 }).map((bytes) => Uint8Array.from(bytes)),
      fc.nat(20000).map((length) => new Uint8Array(length).fill(7, length >> 1, (length >> 1) + 3)),
      fc.array(tie("value"), { maxLength: 4 }),
      fc.dictionary(name, tie("value"), { maxKeys: 4 }),
    ),
  })).value;

  it("comes back from its text as it was", () => {
    fc.assert(
      fc.property(fc.dictionary(name, value, { maxKeys: 5 }), (state) => {
        expect(decodeState(encodeState(state))).toEqual(state);
      }),
    );
  });

  it("keeps names that mean something to JavaScript", () => {
    const state = JSON.parse('{"__proto__": 1, "constructor": 2}') as StateRecord;
    const back = decodeState(encodeState(state));
    expect(Object.entries(back)).toEqual([
      ["__proto__", 1],
      ["constructor", 2],
    ]);
  });

  it.each([
    ["not JSON", "no state document"],
    ["{}", "no state document"],
    ["[1]", "no state document"],
    ['{"nestbox-state":1,"state":{"record":[]}}', "version 1, not 2"],
    ['{"nestbox-state":2,"state":3}', "no record"],
    ['{"nestbox-state":2,"state":{"record":[["a",{"0x":"zz"}]]}}', "state/a: no value"],
    ['{"nestbox-state":2,"state":{"record":[["a",{"bytes":[9007199254740991]}]]}}', "too many"],
    ['{"nestbox-state":2,"state":{"record":[["a",{"bytes":["?"]}]]}}', "state/a: no bytes"],
    [`{"nestbox-state":2,"state":${"[".repeat(1000)}${"]".repeat(1000)}}`, "too deep"],
  ])("that is none is refused with the place: %s", (text, message) => {
    expect(() => record(text)).toThrow(StateError);
    expect(() => record(text)).toThrow(message);
  });
});

describe("a tree of objects", () => {
  it("takes its state back, each part its own", () => {
    const root = tree();
    const saved = decodeState(encodeState(saveTree(root)));
    root.value = 10;
    root.parts.get("right")!.value = 30;
    restoreTree(root, saved);
    expect([root.value, root.parts.get("left")!.value, root.parts.get("right")!.value]).toEqual([1, 2, 3]);
  });

  it("says which part the document has and the machine has not, and the other way round", () => {
    const saved = saveTree(tree());
    const smaller = tree();
    smaller.parts.delete("right");
    expect(() => restoreTree(smaller, saved)).toThrow('machine: there is no part "right" here');
    const larger = tree();
    larger.parts.set("third", new Counter());
    expect(() => restoreTree(larger, saved)).toThrow('machine: the document has no part "third"');
  });

  it.each<[string, StateRecord]>([
    ["no fields", { parts: {} }],
    ["fields that are a list", { state: [] }],
    ["parts that are null", { state: {}, parts: null }],
    ["a part that is a number", { state: { value: 1 }, parts: { left: 1, right: 1 } }],
  ])("refuses a document with %s", (_what, document) => {
    expect(() => restoreTree(tree(), document)).toThrow(StateError);
  });

  it("says where a field is missing or of another kind", () => {
    const root = tree();
    expect(() => restoreTree(root, { ...saveTree(root), state: {} })).toThrow("machine: value is missing");
    expect(() => restoreTree(root, { ...saveTree(root), state: { value: "x" } })).toThrow(
      "machine: value is not a number",
    );
  });
});

describe("a clock's queue", () => {
  const fired: string[] = [];
  const event = (name: string): ClockEvent => ({
    owner: "test",
    name,
    fire: (argument) => fired.push(`${name} ${argument}`),
  });
  const one = event("one");
  const two = event("two");

  it("is written down by owner and name, and fires the same after it was restored", () => {
    const clock = new Clock();
    clock.known = new Map([one, two].map((known) => [eventKey(known.owner, known.name), known]));
    clock.schedule(100, one, 7);
    clock.schedule(50, two, 8);
    const cancelled = clock.schedule(60, one, 9);
    const saved = decodeState(encodeState(saveTree(clock)));
    clock.advance(1000);
    clock.fireDue();
    fired.length = 0;
    restoreTree(clock, saved);
    clock.cancel(cancelled);
    clock.advance(99);
    clock.fireDue();
    expect(fired).toEqual(["two 8"]);
    clock.advance(1);
    clock.fireDue();
    expect(fired).toEqual(["two 8", "one 7"]);
  });

  it("is refused with an event that nothing has", () => {
    const clock = new Clock();
    clock.schedule(1, one);
    expect(() => restoreTree(clock, saveTree(clock))).toThrow('nothing here has an event "test: one"');
  });
});
