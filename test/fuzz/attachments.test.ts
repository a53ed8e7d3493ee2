// A little of `nestbox fuzz attachments` in every test run.

import { expect, it } from "vitest";
import { attachmentsRound } from "./attachments.ts";

it("whatever moves an attachment, DMA lands where a model of the attachments says", () => {
  for (let seed = 1; seed <= 20; seed++) expect([seed, attachmentsRound(seed)]).toEqual([seed, null]);
}, 60_000);
