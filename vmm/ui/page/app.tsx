// The page: what is shown (a story, a guest, a scenario, a trace; once or twice side by side), where it stands, and the way from one moment to the
// next. The address names all of it.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { VIOMMU_KINDS, type ViommuKindName } from "../../viommu/kinds.ts";
import type { Recording, Run } from "../run/recording.ts";
import { STORIES, storyOf } from "../story/stories.ts";
import type { Insert } from "../story/verbs.ts";
import { addressText, type PageAddress, parseAddress } from "./address.ts";
import { download, type OpenedFile, openFile } from "./files.ts";
import { HelpDialog } from "./help.tsx";
import { keyAction } from "./keys.ts";
import { type Action, Narration } from "./narration.tsx";
import { Pane } from "./pane.tsx";
import { Questions } from "./questions.ts";
import { scenarioOf } from "./save.ts";
import { chapterAt, chapterRow, nextFault, openingRow, rowUpTo, verbStep } from "./steps.ts";
import { useTheme } from "./theme.ts";
import { TryAccess } from "./try-access.tsx";

const KINDS = Object.keys(VIOMMU_KINDS) as ViommuKindName[];
const START: PageAddress = {
  show: { what: "story", name: STORIES[0]!.id },
  seed: 0,
  panes: [{ kind: KINDS[0]!, at: -1 }],
  inserts: [],
};

/** What is beside the page: built-in guests, and scenarios that it is served with. */
export interface Programme {
  /** With the kinds of IOMMU that each knows how to drive. */
  readonly images: readonly { readonly name: string; readonly kinds: readonly ViommuKindName[] }[];
  readonly scenarios: readonly { readonly module: string; readonly names: readonly string[] }[];
}

interface Shown {
  readonly recording: Recording;
  readonly row: number;
  readonly kind: ViommuKindName;
}

export function App({ programme }: { readonly programme: Programme }) {
  const questions = useMemo(() => new Questions(), []);
  // Moments are looked at beside what runs.
  const looks = useMemo(() => new Questions(), []);
  const [address, setAddress] = useState<PageAddress | null>(() => parseAddress(location.hash) ?? START);
  const [panes, setPanes] = useState<readonly Shown[]>([]);
  const [active, showActive] = useState(0);
  // A key right behind a click is for the side that was clicked, drawn so or not.
  const activeNow = useRef(0);
  const setActive = (side: number): void => {
    activeNow.current = side;
    showActive(side);
  };
  const [busy, setBusy] = useState<string | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [help, setHelp] = useState(false);
  const [entries, setEntries] = useState<readonly ReadonlyMap<string, bigint>[]>([]);
  const [theme, nextTheme, dark] = useTheme();
  const opened = useRef(0);
  const fileInput = useRef<HTMLInputElement>(null);
  const beside = useRef(false);

  /** Runs what an address names, and shows it at its moments. */
  const show = async (wanted: PageAddress, place?: (recording: Recording) => number): Promise<void> => {
    const turn = ++opened.current;
    setProblem(null);
    setBusy("Running…");
    const next: Shown[] = [];
    for (const { kind, at } of wanted.panes) {
      const answer = await questions.ask({ ask: "run", run: runOf(wanted, kind) });
      if (turn !== opened.current) return;
      if (!("recording" in answer)) {
        setBusy(null);
        setProblem("problem" in answer ? answer.problem : "nothing came of it");
        return;
      }
      const { recording } = answer;
      const row = place?.(recording) ?? (at >= 0 ? rowUpTo(recording, at) : openingRow(recording));
      next.push({ recording, kind, row: Math.max(0, row) });
    }
    setBusy(null);
    setAddress(wanted);
    setPanes(next);
    setActive(0);
  };
  useEffect(() => void show(address ?? START), []);
  useEffect(() => {
    const changed = (): void => {
      const asked = parseAddress(location.hash);
      if (asked !== null && location.hash !== hashNow.current) void show(asked);
    };
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);

  // The address follows what is shown.
  const hashNow = useRef("");
  useEffect(() => {
    if (address === null || panes.length === 0) return;
    const at = panes.map(({ recording, row, kind }) => ({ kind, at: recording.columns.seq[row] ?? 0 }));
    hashNow.current = addressText({ ...address, panes: at });
    history.replaceState(null, "", hashNow.current);
  }, [address, panes]);

  const go = (pane: number, row: number): void =>
    setPanes((now) => now.map((one, n) => (n === pane ? { ...one, row: clamped(one.recording, row) } : one)));
  const act = (action: Action): void =>
    setPanes((now) =>
      now.map((one, n) => {
        // Chapters are told on both sides at once.
        if (one.recording.columns.rows === 0) return one;
        const both = typeof action === "object" || action.startsWith("chapter") || action.startsWith("verb");
        if (n !== activeNow.current && !both) return one;
        return { ...one, row: clamped(one.recording, rowAfter(one, action)) };
      }),
    );

  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      const action = keyAction(event);
      if (action === null) return;
      event.preventDefault();
      if (action === "help") setHelp(true);
      else if (action === "filter") document.querySelector<HTMLInputElement>(".filter input")?.focus();
      else act(action);
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  });

  const openDropped = async (file: File, atSide: boolean): Promise<void> => {
    const turn = ++opened.current;
    setProblem(null);
    setBusy(`Reading ${file.name}…`);
    const kind = panes[0]?.kind ?? KINDS[0]!;
    const result: OpenedFile = await openFile(questions, file, kind, (text) => {
      if (turn === opened.current) setBusy(text);
    });
    if (turn !== opened.current) return;
    setBusy(null);
    if ("problem" in result) {
      setProblem(`${file.name}: ${result.problem}`);
      return;
    }
    const one = { recording: result.recording, row: 0, kind };
    one.row = Math.max(0, openingRow(one.recording));
    setAddress(null);
    setPanes(atSide && panes.length > 0 ? [panes[0]!, one] : [one]);
    setActive(atSide ? 1 : 0);
    history.replaceState(null, "", location.pathname);
  };
  useDrop((file, right) => void openDropped(file, right && panes.length > 0));

  const story = address?.show.what === "story" ? storyOf(address.show.name) : null;
  const put = (insert: Insert): void => {
    if (address === null) return;
    const inserts = [...address.inserts, insert];
    // Where the new verb ends.
    const place = (recording: Recording): number => {
      const index = recording.verbs.findLastIndex(
        (one) =>
          one.own === null &&
          one.verb === recording.verbs.findLast((verb) => verb.own === null && sameVerb(verb.verb, insert.verb))?.verb,
      );
      const verb = recording.verbs[index];
      return verb === undefined ? 0 : rowUpTo(recording, verb.last);
    };
    void show({ ...address, inserts }, place);
  };
  const drives = (show: PageAddress["show"]): readonly ViommuKindName[] =>
    (show.what === "image" && programme.images.find(({ name }) => name === show.name)?.kinds) || KINDS;
  const kindsHere = address === null ? KINDS : drives(address.show);
  const sides = address !== null && address.show.what !== "scenario";
  // Two at a time: the kind that is shown, and the next.
  const left = panes[0]?.kind ?? KINDS[0]!;
  const next = kindsHere[(kindsHere.indexOf(left) + 1) % kindsHere.length];
  const choices = kindsHere.length < 2 ? kindsHere : [...kindsHere, `${left} ${next}`];
  const kindNow = panes.map(({ kind }) => kind).join(" ");
  const choose = (what: string): void => {
    const [kind, name, index] = what.split(" ") as ["story" | "image" | "scenario", string, string | undefined];
    const chosen = kind === "scenario" ? { what: kind, name, index: Number(index) } : { what: kind, name };
    const before = panes.length === 0 ? START.panes : panes;
    const able = before.filter((pane) => drives(chosen).includes(pane.kind));
    // A scenario says itself which kind it is on.
    const kept = kind === "scenario" ? before.slice(0, 1) : able.length > 0 ? able : [{ kind: drives(chosen)[0]! }];
    void show({ show: chosen, seed: 0, inserts: [], panes: kept.map((pane) => ({ kind: pane.kind, at: -1 })) });
  };
  const first = panes[active] ?? panes[0];
  /** The same on other kinds, at the chapter where `from` stands. */
  const showOn = (kinds: readonly ViommuKindName[], from: Shown | undefined): void => {
    if (address === null) return;
    const chapter = from === undefined ? 0 : Math.max(0, chapterAt(from.recording, from.row));
    void show({ ...address, panes: kinds.map((kind) => ({ kind, at: -1 })) }, (recording) =>
      recording.chapters.length === 0 ? openingRow(recording) : chapterRow(recording, chapter),
    );
  };
  /** Above one of two sides: what it is; of two kinds, also the choice which. */
  const sideHead = (n: number) => {
    const name = sideTitle(panes, n, panes[n]!.kind);
    if (address === null || panes[0]!.recording === panes[1]!.recording) return <h2 class="pane-title">{name}</h2>;
    return (
      <label class="pane-title">
        <span class="hidden">Kind of IOMMU on this side</span>
        <select
          value={panes[n]!.kind}
          onChange={(event) => {
            const kind = event.currentTarget.value as ViommuKindName;
            showOn(
              panes.map((pane, side) => (side === n ? kind : pane.kind)),
              panes[n],
            );
          }}
        >
          {kindsHere.map((kind) => (
            <option key={kind} value={kind}>
              {VIOMMU_KINDS[kind].title}
            </option>
          ))}
        </select>
      </label>
    );
  };
  return (
    <>
      <header class="top">
        <h1>
          <span class="mark" aria-hidden="true">
            ▦
          </span>{" "}
          Walk theatre
        </h1>
        <select
          aria-label="What is shown"
          value={address === null ? "" : optionOf(address)}
          onChange={(event) => choose(event.currentTarget.value)}
        >
          {address === null ? <option value="">{panes[0]?.recording.title ?? "a trace"}</option> : null}
          <optgroup label="Stories">
            {STORIES.map(({ id, title }) => (
              <option key={id} value={`story ${id}`}>
                {title}
              </option>
            ))}
          </optgroup>
          {programme.images.length === 0 ? null : (
            <optgroup label="Guests that run in this page">
              {programme.images.map(({ name }) => (
                <option key={name} value={`image ${name}`}>
                  {name}
                </option>
              ))}
            </optgroup>
          )}
          {programme.scenarios.map(({ module, names }) => (
            <optgroup key={module} label={module.replace(/\.js$/, "")}>
              {names.map((name, index) => (
                <option key={name} value={`scenario ${module} ${index}`}>
                  {name}
                </option>
              ))}
            </optgroup>
          ))}
        </select>
        {sides ? (
          <fieldset class="kinds">
            <legend class="hidden">Kind of IOMMU</legend>
            {choices.map((choice) => (
              <button
                type="button"
                key={choice}
                aria-pressed={kindNow === choice}
                onClick={() => {
                  const kinds = choice.split(" ") as ViommuKindName[];
                  showOn(kinds, first);
                }}
              >
                {choice.includes(" ") ? "side by side" : VIOMMU_KINDS[choice as ViommuKindName].title}
              </button>
            ))}
          </fieldset>
        ) : null}
        <span class="grow" />
        <button
          type="button"
          aria-pressed={panes.length === 2 && panes[0]!.recording === panes[1]!.recording}
          disabled={panes.length === 0}
          title="two moments side by side: keep this one beside the one you go to"
          onClick={() => {
            const pinned = panes.length === 2 && panes[0]!.recording === panes[1]!.recording;
            setPanes(pinned ? [panes[active]!] : [first!, first!]);
            setActive(pinned ? 0 : 1);
          }}
        >
          compare
        </button>
        <details class="menu">
          <summary>open</summary>
          <div>
            <p class="muted">
              A trace written by --trace, or a guest image.
              <br />
              You can drop one anywhere, too; on the right half: beside.
            </p>
            {[false, true].map((side) => (
              <button
                type="button"
                key={String(side)}
                disabled={side && panes.length === 0}
                onClick={(event) => {
                  event.currentTarget.closest("details")!.open = false;
                  beside.current = side;
                  fileInput.current?.click();
                }}
              >
                {side ? "a file beside what is shown…" : "a file…"}
              </button>
            ))}
          </div>
        </details>
        <input
          ref={fileInput}
          class="hidden"
          type="file"
          tabIndex={-1}
          aria-hidden="true"
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            if (file !== undefined) void openDropped(file, beside.current);
            event.currentTarget.value = "";
          }}
        />
        <details class="menu">
          <summary>save</summary>
          <div>
            <button
              type="button"
              disabled={first === undefined}
              title="a file for nestbox scenario that comes to what is shown here"
              onClick={async (event) => {
                event.currentTarget.closest("details")!.open = false;
                const file = await scenarioOf(first!.recording, first!.row, looks);
                if (file === null)
                  setProblem("no device has done anything yet: there is nothing to make a scenario of");
                else download(file.name, "text/plain", file.text);
              }}
            >
              this moment as a scenario
            </button>
            <button
              type="button"
              disabled={first === undefined}
              onClick={() => download("walk-theatre.trace.jsonl", "application/jsonl", first!.recording.columns.bytes)}
            >
              the trace
            </button>
          </div>
        </details>
        <button type="button" onClick={nextTheme} title="light, dark, or as the system has it">
          theme: {theme}
        </button>
        <button type="button" onClick={() => setHelp(true)} aria-label="Help and keys">
          ?
        </button>
      </header>
      {busy === null ? null : (
        <p class="busy" role="status">
          {busy}
        </p>
      )}
      {problem === null ? null : (
        <p class="problem banner" role="alert">
          {problem}{" "}
          <button type="button" class="small" onClick={() => setProblem(null)}>
            close
          </button>
        </p>
      )}
      <main>
        {first === undefined ? null : (
          <div class="stage">
            <Narration recording={first.recording} row={first.row} act={act} />
            {story === null ? null : (
              <TryAccess
                recording={first.recording}
                row={first.row}
                put={put}
                changes={address!.inserts.length}
                undo={() => void show({ ...address!, inserts: [] })}
              />
            )}
          </div>
        )}
        <div class={panes.length === 2 ? "panes two" : "panes"}>
          {panes.map(({ recording, row, kind }, n) => (
            <div
              key={n}
              class={panes.length === 2 && n === active ? "side active" : "side"}
              onPointerDown={() => setActive(n)}
              onFocusIn={() => setActive(n)}
            >
              {recording.columns.rows === 0 ? (
                <p class="card nothing">Nothing was traced: it made no event.</p>
              ) : (
                <Pane
                  {...{ recording, row, dark }}
                  questions={looks}
                  go={(to) => go(n, to)}
                  put={story === null ? null : put}
                  other={panes.length === 2 && panes[0]!.kind === panes[1]!.kind ? (entries[1 - n] ?? null) : null}
                  shows={(own) =>
                    setEntries((now) => (n === 0 ? [own, now[1] ?? new Map()] : [now[0] ?? new Map(), own]))
                  }
                  name={panes.length === 2 ? sideTitle(panes, n, kind) : null}
                  title={panes.length === 2 ? sideHead(n) : null}
                />
              )}
            </div>
          ))}
        </div>
      </main>
      {help ? <HelpDialog close={() => setHelp(false)} /> : null}
    </>
  );
}

const optionOf = ({ show }: PageAddress): string =>
  show.what === "scenario" ? `${show.what} ${show.name} ${show.index}` : `${show.what} ${show.name}`;

const sameVerb = (one: Insert["verb"], other: Insert["verb"]): boolean =>
  one.do === other.do && String(Object.values(one)) === String(Object.values(other));

function runOf({ show, seed, inserts }: PageAddress, kind: ViommuKindName): Run {
  switch (show.what) {
    case "story":
      return { what: "story", story: show.name, kind, inserts };
    case "image":
      return { what: "image", name: show.name, kind };
    case "scenario":
      return { what: "scenario", module: show.name, index: show.index, seed };
  }
}

function sideTitle(panes: readonly Shown[], n: number, kind: ViommuKindName): string {
  const [left, right] = panes;
  if (left!.recording === right!.recording) return n === 0 ? "one moment" : "another moment";
  if (left!.recording.run !== null && right!.recording.run !== null) return VIOMMU_KINDS[kind].title;
  return panes[n]!.recording.title;
}

const clamped = ({ columns }: Recording, row: number): number => Math.max(0, Math.min(columns.rows - 1, row));

function rowAfter({ recording, row }: Shown, action: Action): number {
  const { columns, chapters } = recording;
  if (typeof action === "object") return chapterRow(recording, action.chapter);
  const chapter = chapterAt(recording, row);
  switch (action) {
    case "event+":
      return row + 1;
    case "event-":
      return row - 1;
    case "verb+":
    case "verb-":
      return verbStep(recording, row, action === "verb+" ? 1 : -1);
    case "chapter+": {
      const end = chapter < 0 ? -1 : chapterRow(recording, chapter);
      if (row < end) return end;
      return chapter + 1 < chapters.length ? chapterRow(recording, chapter + 1) : columns.rows - 1;
    }
    case "chapter-":
      return chapterRow(recording, Math.max(0, chapter - 1));
    case "fault+":
    case "fault-":
      return nextFault(recording, row, action === "fault+" ? 1 : -1) ?? row;
    case "cause":
      return columns.cause[row]! < 0 ? row : columns.cause[row]!;
    case "first":
      return 0;
    case "last":
      return columns.rows - 1;
  }
}

/** Files dropped anywhere; on the right half: beside what is shown. */
function useDrop(dropped: (file: File, right: boolean) => void): void {
  const latest = useRef(dropped);
  latest.current = dropped;
  useEffect(() => {
    const over = (event: DragEvent): void => event.preventDefault();
    const drop = (event: DragEvent): void => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file !== undefined) latest.current(file, event.clientX > window.innerWidth / 2);
    };
    window.addEventListener("dragover", over);
    window.addEventListener("drop", drop);
    return () => {
      window.removeEventListener("dragover", over);
      window.removeEventListener("drop", drop);
    };
  }, []);
}
