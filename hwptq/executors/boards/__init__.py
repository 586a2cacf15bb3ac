"""Boards: executors that reach another machine, by ssh, by adb, or by TVM's RPC."""
