// Serves a host to programs that are told of it by environment variables (shim/README.md): a folder that only this user can enter, with the
// socket, the tree of files and the preload library in it; it is removed at the end.

import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { HostshimListener } from "./hostshim-listener.ts";
import { type ClientEntry, HostshimServer } from "./hostshim-server.ts";
import type { Outside } from "./outside.ts";
import type { ServedHost } from "./served-host.ts";
import type { SocketCalls } from "./socket-calls.ts";
import { writeSysfs } from "./sysfs-tree.ts";

/** The folder cannot be used: one sentence. */
export class HostFolderError extends Error {}

/** What fits into a socket's address. */
const LONGEST_SOCKET = 107;

export interface HostServiceOptions {
  /** The folder to make; absent: a fresh one for temporary files. */
  readonly folder?: string;
  /** The preload library. */
  readonly library: string;
  readonly socketCalls: SocketCalls;
  /** Programs count as root's, whoever runs them: all capabilities, no limit of locked memory. */
  readonly asRoot: boolean;
  /** Puts something between the listener and the server. */
  readonly between?: (server: ClientEntry) => ClientEntry;
}

export class HostService {
  readonly folder: string;
  readonly host: ServedHost;
  readonly server: HostshimServer;
  readonly listener: HostshimListener;
  readonly #asRoot: boolean;
  readonly #remove = (): void => rmSync(this.folder, { recursive: true, force: true });

  /** Throws HostFolderError. */
  constructor(host: ServedHost, outside: Outside, options: HostServiceOptions) {
    this.host = host;
    this.#asRoot = options.asRoot;
    this.folder =
      options.folder === undefined ? mkdtempSync(join(tmpdir(), "nestbox-host-")) : makeFolder(options.folder);
    process.on("exit", this.#remove);
    const socket = join(this.folder, "socket");
    // The dynamic linker takes either as the end of a name in LD_PRELOAD, and goes on without the library.
    if (/[\s:]/.test(this.folder)) {
      throw new HostFolderError(
        `${this.folder}: LD_PRELOAD cannot name a folder with spaces or colons; take another (TMPDIR)`,
      );
    }
    if (Buffer.byteLength(socket) > LONGEST_SOCKET) {
      throw new HostFolderError(
        `${socket}: a socket's path has at most ${LONGEST_SOCKET} bytes; take a shorter folder (TMPDIR)`,
      );
    }
    copyFileSync(options.library, join(this.folder, "hostshim.so"));
    writeSysfs(this.folder, host);
    this.server = new HostshimServer(socket, host, host.frames, outside);
    const entry = options.between?.(this.server) ?? this.server;
    this.listener = new HostshimListener(socket, entry, options.socketCalls, (line) => host.complain(line));
  }

  /** Programs can connect from here on. Throws HostFolderError. */
  listen(): void {
    const problem = this.listener.listen();
    if (problem !== null) throw new HostFolderError(problem);
  }

  /** What a program needs in its environment. `preload`: what it has in LD_PRELOAD already. */
  environment(preload = ""): Record<string, string> {
    return {
      LD_PRELOAD: [join(this.folder, "hostshim.so"), preload].filter((path) => path !== "").join(":"),
      NESTBOX_HOST_SOCKET: join(this.folder, "socket"),
      NESTBOX_HOST_TREE: this.folder,
      ...(this.#asRoot ? { NESTBOX_HOST_ROOT: "1" } : {}),
      NESTBOX_SYS: join(this.folder, "sys/bus/pci/devices"),
    };
  }

  /** Ends it: what programs hold open is released, and the folder goes. */
  close(): void {
    this.listener.close();
    this.#remove();
    process.off("exit", this.#remove);
  }
}

function makeFolder(folder: string): string {
  try {
    mkdirSync(dirname(folder), { recursive: true });
    // One that exists may be open to others.
    mkdirSync(folder, { mode: 0o700 });
    return folder;
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === "EEXIST" ? "exists already" : (error as Error).message;
    throw new HostFolderError(`${folder}: ${why}`);
  }
}
