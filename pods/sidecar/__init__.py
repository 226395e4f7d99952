"""The program beside the agent: ACP over FIFOs on one side, the gateway on the other. Light dependencies only."""
