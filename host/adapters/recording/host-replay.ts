// Hands what came in during a recorded run to a served host again, as hostshim-listener.ts did then.

import { HostshimServer } from "../hostshim-server.ts";
import type { ServedHost } from "../served-host.ts";
import { nameOf, ReplayDifference } from "./expected-records.ts";
import * as records from "./host-records.ts";
import type { RecordingReader } from "./recording-reader.ts";
import type { ReplayedOutside } from "./replayed-outside.ts";

export interface ReplayOutcome {
  readonly messages: number;
  readonly connections: number;
  /** False: `stop` said so before the recording's end. */
  readonly complete: boolean;
  /** Objects and pins alive when the run ended, "" none. */
  readonly leftOver: string;
}

/**
 * `stop` is asked after each of what came in. Throws ReplayDifference where the model does something else than it did, and RecordingError for records that
 * are none; the host is then good for nothing.
 */
export function replayClients(
  reader: RecordingReader,
  outside: ReplayedOutside,
  host: ServedHost,
  stop: () => boolean,
): ReplayOutcome {
  const server = new HostshimServer("", host, host.frames, outside);
  let messages = 0;
  let connections = 0;
  const outcome = (complete: boolean, leftOver: string) => ({ messages, connections, complete, leftOver });
  for (;;) {
    if (stop()) {
      const { leftOver } = host;
      return outcome(false, leftOver);
    }
    const type = reader.next();
    switch (type) {
      case records.OPENED: {
        const recorded = reader.number();
        const socket = outside.socket();
        socket.number = server.opened(socket);
        if (socket.number !== recorded) throw reader.malformed("number of a connection");
        connections++;
        break;
      }
      case records.MESSAGE: {
        const connection = reader.number();
        // The server writes into what it is given.
        const bytes = Buffer.from(reader.bytes());
        if (bytes.length < 16) throw reader.malformed("message");
        messages++;
        outside.handle(bytes);
        server.message(connection, bytes);
        outside.handle(null);
        break;
      }
      case records.STRAY:
        server.stray(reader.number());
        break;
      case records.DRAINED:
        server.drained(reader.number());
        break;
      case records.RELEASED:
        server.released(reader.number());
        break;
      case records.ENDED:
        server.ended(reader.number());
        break;
      case records.WOKEN:
        outside.onWake();
        break;
      case records.CLOSE: {
        const { leftOver } = host;
        server.close();
        return outcome(true, leftOver);
      }
      case 0:
        throw new ReplayDifference("the recording ends before its run does");
      default:
        throw new ReplayDifference(
          `record ${reader.records}: the model asks for nothing, the recording has ${nameOf(type)}`,
        );
    }
  }
}
