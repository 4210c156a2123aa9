/** The commands of `tapnic`. */

import { newCommand, packageVersion, reportError, warn } from './command.ts';
import { arpCommand } from './arp.ts';
import { captureCommand } from './capture.ts';
import { doctorCommand } from './doctor.ts';
import { explainCommand } from './explain.ts';
import { faultCommand } from './fault.ts';
import { fetchCommand } from './fetch.ts';
import { ifconfigCommand } from './ifconfig.ts';
import { inetdCommand } from './inetd.ts';
import { ndpCommand } from './ndp.ts';
import { netstatCommand } from './netstat.ts';
import { nicsCommand } from './nics.ts';
import { packetdrillCommand } from './packetdrill.ts';
import { pingCommand } from './ping.ts';
import { routeCommand } from './route.ts';
import { serveCommand } from './serve.ts';
import { sysctlCommand } from './sysctl.ts';
import { vmstatCommand } from './vmstat.ts';

// Ignore EPIPE: the reader of our output may exit first, as in `tapnic netstat -an | head`. Other
// errors, such as a full disk, end the command.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (e: NodeJS.ErrnoException) => {
    if (e.code === 'EPIPE') return;
    if (stream.fd === 1) warn(`output: ${e.message}`);
    process.exit(1);
  });

const program = newCommand('tapnic')
  .description('hardware-in-the-loop NIC emulation over Linux TAP devices')
  .version(packageVersion(), '--version', 'print the version')
  .addCommand(serveCommand)
  .addCommand(inetdCommand)
  .addCommand(fetchCommand)
  .addCommand(pingCommand)
  .addCommand(ifconfigCommand)
  .addCommand(netstatCommand)
  .addCommand(sysctlCommand)
  .addCommand(vmstatCommand)
  .addCommand(arpCommand)
  .addCommand(ndpCommand)
  .addCommand(routeCommand)
  .addCommand(captureCommand)
  .addCommand(explainCommand)
  .addCommand(faultCommand)
  .addCommand(nicsCommand)
  .addCommand(packetdrillCommand)
  .addCommand(doctorCommand);

/** Runs the command line and sets the exit status. */
export async function run(): Promise<void> {
  try {
    await program.parseAsync();
  } catch (e) {
    process.exitCode = reportError(e);
  }
}
