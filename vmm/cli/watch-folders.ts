// Waits for changes of source files in folders. A change that comes while nobody waits is not lost.

import { type FSWatcher, watch } from "node:fs";

/** ms that editors take to write a file and its neighbours. */
const SETTLE = 50;

export interface WatchedFolders {
  /** Watches these folders, too. */
  add(folders: Iterable<string>): void;
  /** Waits for a change since the last one that was waited for. */
  change(): Promise<void>;
}

export function watchFolders(folders: Iterable<string>): WatchedFolders {
  const watchers = new Map<string, FSWatcher>();
  let changed = false;
  let wake: (() => void) | null = null;
  const add = (more: Iterable<string>): void => {
    for (const folder of more) {
      if (watchers.has(folder)) continue;
      const watcher = watch(folder, { recursive: false }, (_event, name) => {
        if (name !== null && !/\.([cm]?[jt]sx?|json)$/.test(name)) return;
        changed = true;
        wake?.();
      });
      // A folder that goes away ends its watcher.
      watcher.on("error", () => watchers.delete(folder));
      watchers.set(folder, watcher);
    }
  };
  add(folders);
  return {
    add,
    async change() {
      if (!changed) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      wake = null;
      await new Promise((resolve) => setTimeout(resolve, SETTLE));
      changed = false;
    },
  };
}
