// Serves the walk theatre's files to this machine, and to nobody else. Static: what is asked for is a file's name, and nothing else is read.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { extname, join } from "node:path";
import { UsageError } from "./exit-codes.ts";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};
/** As the page's own; here for its worker, too. */
const POLICY =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/** Names of the page's files: folders of words, no way up. */
const NAME = /^(?:[\w-][\w.-]*\/)*[\w-][\w.-]*$/;

/** A file that does not lie in the page's folder. */
export interface ExtraFile {
  readonly name: string;
  readonly contents: string;
}

export class UiServer {
  readonly #folder: string;
  readonly #extra: ReadonlyMap<string, string>;
  readonly #server = createServer((request, response) => this.#answer(request, response));

  constructor(folder: string, extra: readonly ExtraFile[]) {
    this.#folder = folder;
    this.#extra = new Map(extra.map(({ name, contents }) => [name, contents]));
  }

  /** The port it listens on: the one asked for, or (`orAny`) one that is free. Throws UsageError. */
  listen(port: number, orAny: boolean): Promise<number> {
    return new Promise((listening, failed) => {
      this.#server.once("error", (error: NodeJS.ErrnoException) => {
        if (orAny && error.code === "EADDRINUSE") this.listen(0, false).then(listening, failed);
        else failed(new UsageError(`--port ${port}: ${error.code === "EADDRINUSE" ? "it is taken" : error.message}`));
      });
      this.#server.listen(port, "127.0.0.1", () => {
        const address = this.#server.address();
        listening(typeof address === "object" && address !== null ? address.port : port);
      });
    });
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, { allow: "GET, HEAD" }).end();
      return;
    }
    const path = (request.url ?? "/").split(/[?#]/)[0]!.slice(1);
    const name = path === "" ? "index.html" : path;
    const contents = this.#contents(name);
    if (contents === null) {
      response.writeHead(404, { "content-type": "text/plain" }).end("there is no such file\n");
      return;
    }
    // The page's two workers are one file, and a browser that has it need not have it again.
    const tag = `"${createHash("sha256").update(contents).digest("base64url").slice(0, 22)}"`;
    const status = request.headers["if-none-match"] === tag ? 304 : 200;
    response.writeHead(status, {
      etag: tag,
      "content-type": TYPES[extname(name)] ?? "application/octet-stream",
      "content-security-policy": POLICY,
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cache-control": "no-cache",
    });
    response.end(request.method === "HEAD" || status === 304 ? undefined : contents);
  }

  #contents(name: string): Buffer | string | null {
    const extra = this.#extra.get(name);
    if (extra !== undefined) return extra;
    if (!NAME.test(name)) return null;
    try {
      return readFileSync(join(this.#folder, name));
    } catch {
      return null;
    }
  }
}
