// Ids of an iommufd context as a state document has them: the table has a place for each below, so a document must not choose how many.
import { describe, expect, it } from "vitest";
import { StateError, StateReader } from "../../../../host/base/state.ts";
import { ObjectTable } from "../../../../host/kernel/iommufd/object-table.ts";
import { LiveObjects } from "../../../../host/kernel/live-objects.ts";

const restored = (tombstones: readonly number[], lowest: number): ObjectTable => {
  const table = new ObjectTable(new LiveObjects());
  table.restoreState(new StateReader({ tombstones: [...tombstones], lowest }, "objects"));
  return table;
};

describe("a table's state", () => {
  it("keeps ids that nobody gets again", () => {
    const table = restored([1, 3], 2);
    expect(table.occupied).toBe(true);
    expect(table.saveState()).toEqual({ tombstones: [1, 3], lowest: 2 });
  });

  it.each([2 ** 32 - 1, 2 ** 53, -1, 0, 1.5, Number.NaN])("with the id %d is refused at once", (id) => {
    expect(() => restored([id], 1)).toThrow(StateError);
  });

  it.each([2 ** 31, 0, 2.5, Number.POSITIVE_INFINITY])("whose lowest free id is %d is refused", (lowest) => {
    expect(() => restored([1], lowest)).toThrow(StateError);
  });
});
