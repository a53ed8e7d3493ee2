// State of mappings: what IO page tables show of user memory. Tables of one context share pages (IOAS_COPY), so that both are saved together:
// pages once each, areas with the place of theirs. Areas are made anew; pages that are here already are taken over, others are made again
// where their process or file is here. Nothing is pinned or accounted for a second time: frames, files and processes have counts of their own.

import type { StateReader, StateRecord } from "../../base/state.ts";
import type { Injector } from "../inject.ts";
import type { ObjectNames } from "../object-names.ts";
import { Area } from "./area.ts";
import type { IoPagetable } from "./io-pagetable.ts";
import { UserPages } from "./user-pages.ts";

export type NamedTable = readonly [name: string, table: IoPagetable];

export function savedMappings(tables: Iterable<NamedTable>, names: ObjectNames): StateRecord {
  const places = new Map<UserPages, number>();
  const areas: StateRecord[] = [];
  for (const [name, table] of tables) {
    for (const area of table.areas) {
      const { pages, start, last, startByte, protection, accesses, locks, preventAccess, filled } = area;
      const place = places.get(pages) ?? places.size;
      places.set(pages, place);
      areas.push({
        table: name,
        pages: place,
        start,
        last,
        startByte,
        protection,
        accesses,
        locks,
        preventAccess,
        filled,
      });
    }
  }
  return { pages: [...places.keys()].map((pages) => pages.saved(names)), areas };
}

/** Throws StateError for a table, a process or a file that is not here. */
export function restoreMappings(
  tables: Iterable<NamedTable>,
  state: StateReader,
  names: ObjectNames,
  injector: Injector,
): void {
  const known = new Map(tables);
  const here = pagesByName(known.values(), names);
  const pages = state.records("pages").map((saved) => {
    const same = here.get(saved.text("name"))?.shift() ?? UserPages.fromState(saved, names, injector);
    same.restore(saved);
    return same;
  });
  for (const table of known.values()) table.areas.clear();
  for (const saved of state.records("areas")) {
    const name = saved.text("table");
    const table = known.get(name) ?? saved.fail("table", `is ${name}, which is not here`);
    const shown = pages[saved.number("pages")] ?? saved.fail("pages", "is out of range");
    const start = saved.bigint("start");
    const length = saved.bigint("last") - start + 1n;
    const area = new Area(table, shown, start, length, saved.bigint("startByte"), saved.number("protection"));
    area.accesses = saved.number("accesses");
    area.locks = saved.number("locks");
    area.preventAccess = saved.boolean("preventAccess");
    area.filled = saved.boolean("filled");
    table.areas.insert(area);
    shown.shownBy(area);
  }
}

function pagesByName(tables: Iterable<IoPagetable>, names: ObjectNames): Map<string, UserPages[]> {
  const all = new Set<UserPages>();
  for (const table of tables) for (const { pages } of table.areas) all.add(pages);
  const byName = new Map<string, UserPages[]>();
  for (const pages of all) {
    const name = pages.nameIn(names);
    const same = byName.get(name);
    if (same === undefined) byName.set(name, [pages]);
    else same.push(pages);
  }
  return byName;
}
