// One recording at one moment: what the page shows once, or twice side by side.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { consequencesOf, filledAt, walkAt } from "../../view/moment.ts";
import { ObjectHistory } from "../../view/objects.ts";
import { FilterError, parseFilter, rowsThatFit } from "../../view/trace-filter.ts";
import { eventAt, rowOf } from "../../view/trace-index.ts";
import { verdictOf } from "../../view/verdict.ts";
import { explainerOfWalk, type WalkCell, type WalkRow, walkGrid } from "../../view/walk-grid.ts";
import { explainerOf } from "../../viommu/kinds.ts";
import type { Truth } from "../run/live.ts";
import type { Place, Recording } from "../run/recording.ts";
import type { Insert } from "../story/verbs.ts";
import { agreementOf, walkNow } from "./agreement.ts";
import { EventList } from "./event-list.tsx";
import { EventDetail, StructureTable } from "./event-view.tsx";
import { deviceName, kindsOf, placesOf, refusalOf } from "./facts.ts";
import { ObjectGraph } from "./objects-view.tsx";
import type { Questions } from "./questions.ts";
import { verbAt } from "./steps.ts";
import { Timeline } from "./timeline.tsx";
import { keyOf, TruthTable } from "./truth-view.tsx";
import { VerdictCard } from "./verdict-card.tsx";
import { entriesByPlace, WalkTable } from "./walk-view.tsx";

interface Props {
  readonly recording: Recording;
  readonly row: number;
  readonly go: (row: number) => void;
  readonly questions: Questions;
  readonly dark: boolean;
  /** Puts a verb in, where the recording is of a story. */
  readonly put: ((insert: Insert) => void) | null;
  /** Entries of the pane beside this one, and how to tell it of ours. */
  readonly other: ReadonlyMap<string, bigint> | null;
  readonly shows: (entries: ReadonlyMap<string, bigint>) => void;
  /** Of two: what stands above each. */
  readonly title: ComponentChildren;
  readonly name: string | null;
}

export function Pane({ recording, row, go, questions, dark, put, other, shows, title, name }: Props) {
  const { columns, run } = recording;
  const [filter, setFilter] = useState("");
  const [chosen, setChosen] = useState<number | null>(null);
  const [shown, setShown] = useState<string | null>(null);

  const history = useMemo(() => new ObjectHistory(columns), [columns]);
  const places = useMemo(() => placesOf(recording), [recording]);
  const kindOfIommu = useMemo(() => kindsOf(recording), [recording]);
  const objects = useMemo(() => history.at(row), [history, row]);
  const event = useMemo(() => eventAt(columns, row), [columns, row]);
  const moment = useMemo(() => walkAt(columns, row), [columns, row]);
  const { truths, isOfNow } = useTruths(recording, columns.seq[row]!, places, questions);
  const { rows, matches, problem } = useMemo(() => filtered(recording, filter), [recording, filter]);

  const truth = Array.isArray(truths) ? truths.find((one) => keyOf(one) === shown) : undefined;
  const walk = truth === undefined ? (moment?.walk ?? null) : walkNow(truth);
  const grid = useMemo(() => (walk === null ? null : walkGrid(walk)), [walk]);
  const verdict = useMemo(() => {
    if (walk === null) return null;
    const faultRow = walk.fault === null || truth !== undefined ? -1 : rowOf(columns, walk.fault.seq);
    return verdictOf(
      walk,
      faultRow < 0 ? [] : consequencesOf(columns, faultRow),
      deviceName(recording, moment, objects),
      refusalOf(recording, moment, history),
    );
  }, [walk, columns]);
  useEffect(() => shows(grid === null ? new Map() : entriesByPlace(grid)), [grid]);
  // Another moment: what was chosen before is not part of it.
  useEffect(() => setChosen(null), [row, shown, recording]);

  // Nothing chosen: what the event loads, or where the walk ended.
  const ended = walk?.fault == null ? walk?.steps.findLast(({ table }) => table !== "stage2") : walk.steps.at(-1);
  const wanted = chosen ?? (event.type === "walk" ? event.seq : (ended ?? walk?.steps.at(-1))?.seq);
  const step = walk?.steps.find(({ seq }) => seq === wanted) ?? null;
  const upTo =
    truth === undefined && moment?.own === true && moment.row > row ? columns.seq[row]! : Number.POSITIVE_INFINITY;
  const verb = verbAt(recording, row);
  const own =
    recording.verbs[verb]?.own ?? recording.verbs.slice(0, verb + 1).findLast((one) => one.own !== null)?.own ?? null;
  const flip =
    put === null || own === null || step === null
      ? null
      : (word: number, bit: number) =>
          put({
            after: own,
            verb: { do: "flip", spa: step.address + BigInt(8 * word + 8 * (bit >> 6)), bit: bit & 63 },
          });
  const command =
    event.type === "command" ? explainerOf(kindOfIommu.get(event.iommu)).decodeCommand(event.words) : null;
  const record =
    event.type === "fault" && event.words !== undefined ? explainerOf(event.kind).decodeFault(event.words) : null;
  const filler = useMemo(() => (moment === null ? null : filledAt(columns, moment)), [columns, moment]);
  const choose = (cell: WalkCell, _row: WalkRow): void => {
    setChosen(cell.seq);
    // A load of the past is a moment; one that was only asked about is none.
    if (truth === undefined && cell.seq > columns.seq[row]!) go(rowOf(columns, cell.seq));
  };
  return (
    <article class="pane" aria-label={name ?? recording.title}>
      {title}
      <VerdictCard verdict={verdict} own={truth !== undefined || moment?.own === true} now={truth !== undefined} />
      <Timeline columns={columns} chapters={recording.chapters} row={row} matches={matches} go={go} dark={dark} />
      <div class="columns">
        <div class="main">
          <section class="card" aria-label="Walk">
            <header>
              <h2>{truth === undefined ? "The walk" : "The tables now"}</h2>
              <span class="muted">
                {truth !== undefined
                  ? "as the hardware would walk them if it remembered nothing"
                  : moment === null
                    ? ""
                    : moment.own
                      ? "of this moment"
                      : "the last one before this moment"}
              </span>
              <span class="grow" />
              {truth === undefined ? null : (
                <button type="button" class="small" onClick={() => setShown(null)}>
                  back to the walk
                </button>
              )}
            </header>
            {grid === null ? (
              <p class="nothing">No device has done anything yet.</p>
            ) : (
              <WalkTable
                grid={grid}
                verdict={verdict}
                upTo={upTo}
                chosen={step?.seq ?? null}
                choose={choose}
                other={other}
              />
            )}
            {truth !== undefined || filler === null ? null : (
              <p>
                It remembers it from{" "}
                <button type="button" class="small" onClick={() => go(filler)}>
                  the walk of event {columns.seq[filler]}
                </button>
              </p>
            )}
          </section>
          <section class="card" aria-label="Intent and truth">
            <header>
              <h2>Guest's intent, host's truth</h2>
              {Array.isArray(truths) && truths.some((one) => agreementOf(one) === "stale") ? (
                <span class="badge stale" role="status">
                  a stale entry
                </span>
              ) : null}
            </header>
            <div class={isOfNow ? "" : "aging"} aria-busy={!isOfNow}>
              <TruthTable
                truths={truths}
                shown={shown}
                show={(one) => setShown(keyOf(one) === shown ? null : keyOf(one))}
              />
            </div>
          </section>
          <EventList {...{ columns, row, filter, setFilter, problem, rows, go }} />
          {run === null || recording.messages.length === 0 ? null : (
            <section class="card" aria-label="Messages">
              <header>
                <h2>What the VMM and its guest said</h2>
              </header>
              <pre class="messages">{recording.messages.join("\n")}</pre>
            </section>
          )}
        </div>
        <div class="aside">
          <section class="card detail" aria-label="Detail">
            <header>
              <h2>Taken apart</h2>
            </header>
            {step === null || walk === null ? (
              <p class="nothing">Choose a cell of the walk to see its entry field by field.</p>
            ) : (
              <StructureTable
                title={`${step.table} level ${step.level} at ${`0x${step.address.toString(16)}`}`}
                structure={explainerOfWalk(walk).decodeEntry(step)}
                flip={flip}
              />
            )}
            {command === null ? null : <StructureTable title="Queue entry" structure={command} flip={null} />}
            {record === null ? null : <StructureTable title="Queue entry" structure={record} flip={null} />}
            <EventDetail event={event} />
          </section>
          <section class="card" aria-label="Objects">
            <header>
              <h2>Identities and objects</h2>
            </header>
            <ObjectGraph objects={objects} guests={recording.guests} />
          </section>
        </div>
      </div>
    </article>
  );
}

function filtered(recording: Recording, line: string) {
  const { columns } = recording;
  try {
    const filter = parseFilter(line);
    if (filter === null) return { rows: null, matches: null, problem: null };
    const rows = rowsThatFit(filter, columns);
    const matches = new Uint8Array(columns.rows);
    for (const row of rows) matches[row] = 1;
    return { rows, matches, problem: null };
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    return { rows: null, matches: null, problem: error.message };
  }
}

/** What the machine says at the moment shown; asked anew when the moment changes, and only for the last one. Until it answers: what it said before. */
function useTruths(
  { run }: Recording,
  seq: number,
  places: readonly Place[],
  questions: Questions,
): { readonly truths: readonly Truth[] | "waiting" | "recorded"; readonly isOfNow: boolean } {
  const [said, setSaid] = useState<{
    readonly seq: number;
    readonly run: unknown;
    readonly truths: readonly Truth[];
  }>();
  useEffect(() => {
    if (run === null) return;
    let wanted = true;
    // Not for each of the moments that somebody hurries past.
    const timer = window.setTimeout(async () => {
      const answer = await questions.ask({ ask: "look", run, look: { seq, places } }, () => {}, [], places);
      if (wanted) setSaid({ seq, run, truths: "truths" in answer ? answer.truths : [] });
    }, 30);
    return () => {
      wanted = false;
      window.clearTimeout(timer);
    };
  }, [run, seq, places]);
  if (run === null) return { truths: "recorded", isOfNow: true };
  const isOfNow = said?.seq === seq && said.run === run;
  return { truths: said?.truths ?? "waiting", isOfNow };
}
