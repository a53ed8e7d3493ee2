// A structure of a specification taken apart for a person: every field with its bits, its value and what that is called.

import type { FieldSpec, Structure } from "../../host/base/fields.ts";

export interface DecodedField {
  readonly name: string;
  /** "63:60", "0"; with the doubleword before it where the structure has several: "1, 31:12". */
  readonly bits: string;
  /** Where it stands, for who wants to change it: bit `low` of doubleword `word`, `width` bits. */
  readonly word: number;
  readonly low: number;
  readonly width: number;
  readonly value: bigint;
  /** The specification's name of the value, or what it means. */
  readonly meaning?: string;
}

export interface DecodedStructure {
  readonly name: string;
  readonly specification: string;
  readonly section: string;
  readonly fields: readonly DecodedField[];
}

/** Takes apart the first `known` doublewords of a structure: traces carry only the first of most. `skip`: fields that say nothing. */
export function decoded<F extends Record<string, FieldSpec>>(
  shape: Structure<F>,
  specification: string,
  words: readonly bigint[],
  skip: readonly string[] = [],
): DecodedStructure {
  const fields = Object.values(shape.fields)
    .filter(({ name, word }) => word < words.length && !skip.includes(name))
    .map(({ name, word, high, low, width, values }): DecodedField => {
      const value = shape.get(words, name);
      const meaning = values?.[Number(value)];
      const range = high === low ? `${low}` : `${high}:${low}`;
      return {
        ...{ name, word, low, width, value },
        bits: words.length > 1 ? `${word}, ${range}` : range,
        ...(meaning === undefined ? {} : { meaning }),
      };
    });
  return { name: shape.name, specification, section: shape.section, fields };
}
