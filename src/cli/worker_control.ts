/** Control requests on one of several stacks on the same TAP. */

import { handleRequest } from '../ctl/control.ts';
import type { ControlRequest, ControlResponse } from '../ctl/protocol.ts';
import type { NetstatS } from '../ctl/netstat_s.ts';
import { exchangeStats } from '../host/exchange.ts';

/** Executes `req` on the stack of this thread, and adds the counts of its exchange to `netstat -s`. */
export function workerAnswer(
  target: Parameters<typeof handleRequest>[0],
  req: ControlRequest,
): ControlResponse {
  const stats = exchangeStats();
  const answer = handleRequest(target, req);
  if (stats === null || !answer.ok || req.cmd !== 'netstat' || req.args['report'] !== 's')
    return answer;
  const { protocols, reasons } = answer.data as NetstatS;
  return { ...answer, data: { protocols: { ...protocols, workers: { ...stats } }, reasons } };
}
