// The arguments of a program that `nestbox host run` starts: the folder of the host's PCI devices, which has no name before, is put into them.

/** Replaced in the program's arguments, where its shell did not. */
const SYSFS_VARIABLE = /\$(NESTBOX_SYS\b|\{NESTBOX_SYS\})/g;
/** What is left of "$NESTBOX_SYS/0000:01:00.0" when a shell that has no such variable has read it. */
const LEFT_OF_VARIABLE = /(?<=^|[=,])\/([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?=$|[,/])/gi;

/** `folder`: what the variable stands for; `devices`: the host's; `say`: gets a line where a shell had taken the variable away. */
export function withSysfs(
  words: readonly string[],
  folder: string,
  devices: ReadonlySet<string>,
  say: (line: string) => void,
): string[] {
  return words.map((word) =>
    word.replace(SYSFS_VARIABLE, folder).replace(LEFT_OF_VARIABLE, (path: string, bdf: string) => {
      if (!devices.has(bdf.toLowerCase())) return path;
      say(
        `"${word}" is taken for $NESTBOX_SYS${path}: the shell knows no such variable (quote it: '$NESTBOX_SYS${path}')`,
      );
      return folder + path;
    }),
  );
}
