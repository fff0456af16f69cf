// Package dm drives the kernel's device-mapper by its ioctls: it creates devices, swaps their tables,
// reads their status and waits for their events. It also builds the tables that Ebb uses and parses the
// status lines of their targets.
//
// It is neither libdevmapper nor a policy: it knows no disks or volumes and keeps no state of its own.
// Lengths and offsets are 512-byte sectors unless a name says otherwise. It needs CAP_SYS_ADMIN.
//
// Nothing here can leave a device suspended. There is no suspend operation; a table is loaded beside the
// live one and Resume swaps it in by a single ioctl, so a caller that dies leaves either the old table or
// the new one at work.
package dm
