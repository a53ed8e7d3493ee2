// A request to the monitor, out of a line: words as on a command line, or a JSON object {"id": 1, "command": "step", "n": 2}.

import { COMMANDS, type CommandName, type CommandShape, shapeOf, usageOf } from "./command-shapes.ts";

export type Argument = string | number | bigint | boolean | readonly string[];

export interface Request {
  readonly command: CommandName;
  /** By name of operand or option; addresses are bigint. */
  readonly arguments: Readonly<Record<string, Argument>>;
  /** Given back with the answer. */
  readonly id?: number | string;
}

/** What is wrong with a request, in one line; the id is the request's, where there was one. */
export class RequestError extends Error {
  readonly id: number | string | undefined;

  constructor(message: string, id?: number | string) {
    super(message);
    this.id = id;
  }
}

/** Throws RequestError. */
export function parseRequest(line: string): Request {
  const text = line.trim();
  return text.startsWith("{") ? fromJson(text) : fromWords(wordsOf(text));
}

/** Words between blanks; quotes keep blanks together. */
export function wordsOf(text: string): string[] {
  const words: string[] = [];
  for (const [, double, single, bare] of text.matchAll(/"([^"]*)"|'([^']*)'|([^\s"']+)/g))
    words.push(double ?? single ?? bare ?? "");
  return words;
}

function commandOf(name: unknown, id?: number | string): CommandShape {
  const shape = typeof name === "string" ? shapeOf(name) : undefined;
  if (shape !== undefined) return shape;
  const known = COMMANDS.map((command) => command.name).join(", ");
  throw new RequestError(`there is no command ${JSON.stringify(name)} (there are ${known})`, id);
}

function fromWords([name, ...rest]: readonly string[]): Request {
  const shape = commandOf(name);
  const given: Record<string, unknown> = {};
  const operands: string[] = [];
  for (let at = 0; at < rest.length; at++) {
    const word = rest[at]!;
    if (!word.startsWith("--")) {
      operands.push(word);
      continue;
    }
    const [key, inline] = splitOnce(word.slice(2), "=");
    const option = shape.options.find((candidate) => candidate.name === key);
    if (option === undefined) throw new RequestError(`${shape.name} takes no --${key}: ${usageOf(shape)}`);
    if (option.type === "flag") {
      if (inline !== undefined) throw new RequestError(`--${key} of ${shape.name} takes no value`);
      given[key] = true;
      continue;
    }
    const value = inline ?? rest[++at];
    if (value === undefined) throw new RequestError(`--${key} of ${shape.name} needs a value: ${usageOf(shape)}`);
    given[key] = value;
  }
  for (const operand of shape.operands) {
    if (operand.many === true) given[operand.name] = operands.splice(0);
    else if (operands.length > 0) given[operand.name] = operands.shift();
  }
  if (operands.length > 0)
    throw new RequestError(`${shape.name}: ${JSON.stringify(operands[0])} is one too many: ${usageOf(shape)}`);
  return checked(shape, given);
}

function splitOnce(text: string, at: string): [string, string | undefined] {
  const index = text.indexOf(at);
  return index < 0 ? [text, undefined] : [text.slice(0, index), text.slice(index + 1)];
}

function fromJson(text: string): Request {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new RequestError(`no JSON: ${(error as Error).message}`);
  }
  const { id, command, ...given } = value as Record<string, unknown>;
  if (id !== undefined && typeof id !== "number" && typeof id !== "string")
    throw new RequestError("id is a number or a string");
  const shape = commandOf(command, id);
  const known = new Set([...shape.operands, ...shape.options].map(({ name }) => name));
  const stray = Object.keys(given).find((key) => !known.has(key));
  if (stray !== undefined) throw new RequestError(`${shape.name} takes no ${JSON.stringify(stray)}`, id);
  return checked(shape, given, id);
}

function checked(shape: CommandShape, given: Readonly<Record<string, unknown>>, id?: number | string): Request {
  const result: Record<string, Argument> = {};
  const wrong = (name: string, what: string): never => {
    throw new RequestError(`${name} of ${shape.name} is ${what}`, id);
  };
  for (const taken of [...shape.operands, ...shape.options]) {
    const { name, type, required } = taken;
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    if (value === undefined || value === null || value === false) {
      if (required === true) throw new RequestError(`${shape.name} needs ${name}: ${usageOf(shape)}`, id);
      if ("many" in taken && taken.many === true) result[name] = [];
      continue;
    }
    if ("many" in taken && taken.many === true) {
      if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) wrong(name, "a list of strings");
      result[name] = value as string[];
    } else if (type === "flag") {
      if (value !== true) wrong(name, "true or left out");
      result[name] = true;
    } else if (type === "text") {
      if (typeof value !== "string" || value === "") wrong(name, "a text");
      result[name] = value as string;
    } else if (type === "number") {
      const number = typeof value === "string" && /^\d+$/.test(value) ? Number(value) : value;
      if (typeof number !== "number" || !Number.isSafeInteger(number) || number < 0) wrong(name, "a whole number");
      result[name] = number as number;
    } else {
      const text = typeof value === "number" ? String(value) : value;
      if (typeof text !== "string" || !/^(0x[0-9a-fA-F]+|\d+)$/.test(text) || BigInt(text) >= 1n << 64n)
        wrong(name, "an address of at most 64 bits, such as 0x1000");
      result[name] = BigInt(text as string);
    }
  }
  const { name } = shape as { readonly name: CommandName };
  return { command: name, arguments: result, ...(id === undefined ? {} : { id }) };
}
