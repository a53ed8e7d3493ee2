// Whose fault it is, why, and where the news goes: the first thing to read.

import type { Verdict } from "../../view/verdict.ts";

const SIGNS: Readonly<Record<Verdict["blame"], string>> = { none: "✓", guest: "✕", host: "✕", device: "✕", open: "✕" };

interface Props {
  readonly verdict: Verdict | null;
  readonly own: boolean;
  /** It is of the tables as they are, not of an access that was made. */
  readonly now: boolean;
}

export function VerdictCard({ verdict, own, now }: Props) {
  if (verdict === null) {
    return (
      <section class="card verdict quiet" aria-label="Verdict" aria-live="polite">
        <p class="headline">No device has done anything yet</p>
        <p class="muted">Step on: the first DMA says whose fault it is if it fails.</p>
      </section>
    );
  }
  const { blame, headline, access, where, why, section, way } = verdict;
  return (
    <section class={`card verdict ${blame} ${own ? "" : "quiet"}`} aria-label="Verdict" aria-live="polite">
      <p class="headline">
        <span aria-hidden="true" class="sign">
          {SIGNS[blame]}
        </span>{" "}
        {now ? (blame === "none" ? "It would go through" : `${headline}, if it were tried now`) : headline}
      </p>
      <p class="access">
        {own ? "" : "Last: "}
        {access}
        {where === "" ? "" : `; refused ${where}`}
      </p>
      {why === "" ? null : (
        <p class="why">
          {why} <span class="section">{section}</span>
        </p>
      )}
      {now ? null : (
        <ol class="way" aria-label="Where the news goes">
          {way.map((station) => (
            <li key={station}>{station}</li>
          ))}
        </ol>
      )}
    </section>
  );
}
