// Package qemu runs the data plane in a virtual machine whose volumes are NVMe controllers with the volume
// id as their serial number, plugged in and out while it runs, as EC2 does it. Everything else runs on
// nodes of tests/node, which are smaller and faster; only here is the path that tells volumes apart real:
// controllers that are asked who they are, and device names that wander.
//
// A machine is Debian's kernel for virtual machines (scripts/fetch-kernel) and an archive in memory that
// holds the package's own tests and the few programs they need. Its first serial line is the console. On
// the second the guest asks its host to act, one line for each: "plug ID", "unplug ID", "cut" for a power
// cut, and "exit CODE" at the end; the host answers "done" or "failed: ..." when it has.
//
// It runs in the heavy matrix only (EBB_TEST_FULL=1), with hardware acceleration where there is some.
package qemu
