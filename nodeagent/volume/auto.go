package volume

import "github.com/ebb-storage/ebb/nodeagent/dm"

// Auto finds volumes wherever the agent runs: EBS volumes by NVMe, those that QEMU emulates, and those of
// the bench by device-mapper UUID.
//
// The last two cannot fire on EC2 by accident. Nitro's controllers carry Amazon's PCI vendor id, never
// QEMU's. A device-mapper UUID with the bench's prefix exists only where root has made a device and named
// it so: the kernel makes no UUIDs up, LVM, LUKS, multipath and the like begin theirs with their own names
// (LVM-, CRYPT-, mpath-), Ebb's own devices have another prefix, and UUIDs are not stored on disks, so
// none can come in with a volume's contents. Should such a device exist all the same and claim the id of
// an attached volume, Open refuses with ErrAmbiguous.
func Auto(c *dm.Client) Locator { return locate(union{nvme, qemu, uml(c)}) }
