// One event, and one table or queue entry, taken apart: every field with its bits, its value, what it is called, and the section that says so.

import { hex } from "../../../host/base/address.ts";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { bodyText } from "../../view/trace-text.ts";
import type { DecodedField, DecodedStructure } from "../../viommu/decoded-structure.ts";

interface StructureProps {
  readonly title: string;
  readonly structure: DecodedStructure;
  /** Flips a bit of it, where it can be changed; `word` is the doubleword. */
  readonly flip: ((word: number, bit: number) => void) | null;
}

export function StructureTable({ title, structure, flip }: StructureProps) {
  const telling = structure.fields.filter(({ value }) => value !== 0n);
  const silent = structure.fields.filter(({ value }) => value === 0n);
  return (
    <div class="structure">
      <h3>
        {title} <span class="muted">{structure.name}</span>
      </h3>
      <table class="fields">
        <thead>
          <tr>
            <th scope="col">field</th>
            <th scope="col">bits</th>
            <th scope="col">value</th>
            {flip === null ? null : <th scope="col">change</th>}
          </tr>
        </thead>
        <tbody>
          {[...telling, ...silent].map((field) => (
            <FieldRow key={field.name} field={field} flip={flip} />
          ))}
        </tbody>
      </table>
      <p class="section">
        {structure.specification} {structure.section}
      </p>
    </div>
  );
}

function FieldRow({ field, flip }: { readonly field: DecodedField; readonly flip: StructureProps["flip"] }) {
  const { name, bits, value, meaning, width, low, word } = field;
  return (
    <tr class={value === 0n ? "zero" : ""}>
      <th scope="row">{name}</th>
      <td>
        <code>{bits}</code>
      </td>
      <td>
        <code>{width > 4 ? hex(value) : String(value)}</code>
        {meaning === undefined ? null : <span> {meaning}</span>}
      </td>
      {flip === null ? null : (
        <td>
          <button
            type="button"
            class="small"
            onClick={() => flip(word, low)}
            title={`flip bit ${low} and run on from here`}
          >
            {width === 1 ? (value === 0n ? "set" : "clear") : `flip bit ${low}`}
          </button>
        </td>
      )}
    </tr>
  );
}

export function EventDetail({ event }: { readonly event: TracedEvent }) {
  const { seq, time, cause, type, ...fields } = event;
  return (
    <div class="structure">
      <h3>
        Event {seq} <span class="muted">{type}</span>
      </h3>
      <p>{bodyText(event)}</p>
      <dl class="facts">
        <dt>time</dt>
        <dd>{time / 1000} µs</dd>
        <dt>cause</dt>
        <dd>{cause === 0 ? "none" : `event ${cause}`}</dd>
        {Object.entries(fields).map(([name, value]) => [
          <dt key={`${name} name`}>{name}</dt>,
          <dd key={name}>
            <code>{valueText(value)}</code>
          </dd>,
        ])}
      </dl>
    </div>
  );
}

function valueText(value: unknown): string {
  if (typeof value === "bigint") return hex(value);
  if (Array.isArray(value)) return value.map(valueText).join(" ");
  if (typeof value === "object" && value !== null) {
    return Object.entries(value)
      .map(([name, item]) => `${name}=${valueText(item)}`)
      .join(" ");
  }
  return String(value);
}
