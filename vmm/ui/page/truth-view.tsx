// The guest's intent against the host's truth: what the tables say now of each page that devices have asked for, and what the hardware still
// remembers. An entry that is remembered and no longer stands in the tables is stale, and stands out until it is invalidated.

import { hex } from "../../../host/base/address.ts";
import { walkGrid } from "../../view/walk-grid.ts";
import type { Truth } from "../run/live.ts";
import { type Agreement, agreementOf, walkNow } from "./agreement.ts";

const WORDS: Readonly<Record<Agreement, string>> = {
  agrees: "agree",
  stale: "STALE",
  "not cached": "not cached",
  nothing: "nothing there",
};
const SAYS: Readonly<Record<Agreement, string>> = {
  agrees: "tables and cache say the same",
  stale: "the cache holds what the tables no longer say; nothing has told it to forget",
  "not cached": "the hardware would walk the tables",
  nothing: "neither tables nor cache lead anywhere",
};

interface Props {
  readonly truths: readonly Truth[] | "waiting" | "recorded";
  readonly shown: string | null;
  readonly show: (truth: Truth) => void;
}

export const keyOf = ({ place }: Truth): string => `${place.device} ${place.iova}`;

export function TruthTable({ truths, shown, show }: Props) {
  if (truths === "recorded") {
    return (
      <p class="nothing">
        A recorded trace says what was read, not what stands in memory. Run the story here, and tables and caches are
        asked.
      </p>
    );
  }
  if (truths === "waiting") return <p class="nothing">Asking the machine…</p>;
  if (truths.length === 0) return <p class="nothing">No device has asked for an address yet.</p>;
  return (
    <div class="grid-scroll">
      <table class="truth">
        <thead>
          <tr>
            <th scope="col">IOVA</th>
            <th scope="col">together</th>
            <th scope="col">guest's tables say</th>
            <th scope="col">so memory at</th>
            <th scope="col">cache holds</th>
          </tr>
        </thead>
        <tbody>
          {truths.map((truth) => {
            const grid = walkGrid(walkNow(truth));
            const final = grid.rows.at(-1);
            const agreement = agreementOf(truth);
            const rights = `${truth.reading.now === null ? "" : "R"}${truth.writing.now === null ? "" : "W"}`;
            const now = truth.reading.now ?? truth.writing.now;
            const gpa = final?.table === "final" ? final.gpa : null;
            return (
              <tr key={keyOf(truth)} class={`${agreement.replace(" ", "-")} ${shown === keyOf(truth) ? "chosen" : ""}`}>
                <th scope="row">
                  <button
                    type="button"
                    class="link"
                    onClick={() => show(truth)}
                    title="show the walk through the tables as they are now"
                  >
                    {hex(truth.place.iova)}
                  </button>
                  <small>{truth.place.device}</small>
                </th>
                <td>
                  <span class="badge" title={SAYS[agreement]}>
                    {agreement === "nothing" && gpa !== null ? "refused by the host" : WORDS[agreement]}
                  </span>
                </td>
                <td>
                  {gpa !== null ? (
                    <code>gpa {hex(gpa)}</code>
                  ) : now === null ? (
                    <span>no</span>
                  ) : (
                    <span>passes as it is</span>
                  )}
                </td>
                <td>{now === null ? <span>—</span> : <code>{`${hex(now)} ${rights}`}</code>}</td>
                <td>
                  {truth.reading.remembered === null ? <span>—</span> : <code>{hex(truth.reading.remembered)}</code>}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
