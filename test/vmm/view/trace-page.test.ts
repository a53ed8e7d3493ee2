// The page about the trace format names every event type with exactly the fields that the reader checks, and the version that it reads.

import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { TRACE_VERSION } from "../../../host/base/trace-json.ts";
import { EVENT_FIELDS } from "../../../host/base/trace-shape.ts";
import { EVENT_TYPES } from "../../../vmm/view/trace-index.ts";

const page = readFileSync(new URL("../../../vmm/view/TRACE.md", import.meta.url), "utf8");

it("the trace format's page says what the reader checks", () => {
  expect(page).toContain(`# The trace format, version ${TRACE_VERSION}`);
  expect(page).toContain(`{"nestbox-trace":${TRACE_VERSION}}`);
  const rows = new Map(
    [...page.matchAll(/^\| `(\w+)` +\| (.*?)\|$/gm)].map(([, type, fields]) => [
      type,
      // Up to the colon that begins what it means; words in parentheses are values.
      [
        ...fields!
          .replaceAll(/\([^)]*\)/g, "")
          .split(": ")[0]!
          .matchAll(/`(\w+)`/g),
      ].map(([, name]) => name),
    ]),
  );
  expect([...rows.keys()].sort()).toEqual([...EVENT_FIELDS.keys()].sort());
  expect([...EVENT_TYPES].sort()).toEqual([...EVENT_FIELDS.keys()].sort());
  for (const [type, fields] of EVENT_FIELDS) expect([type, rows.get(type)]).toEqual([type, fields]);
});
