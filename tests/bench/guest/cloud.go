package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/node"
)

// Volumes of a cloud are far away. Cloud volumes are in the node's memory, but
// the kernel's scsi_debug lets each request of up to cloudRequestKB take its
// time, of which cloudQueue are served at once: about 3,000 requests a second and
// 166 MiB/s, not far from what a gp3 volume has by default (3,000, 125 MiB/s).
// Like EBS volumes they have no volatile cache and no scheduler.
//
// Writeback throttling is off. From a queue as short as theirs it lets through one
// write at a time that is not O_DIRECT, those of the kernel's own copies among
// them; of the long queue of an NVMe volume it leaves four at least.
const (
	cloudMiB       = 2048
	cloudDelayNS   = 650_000
	cloudQueue     = 2
	cloudRequestKB = 64
)

const cloudDisks = "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/sd*"

// cloudVolumes attaches the two cloud volumes, which are made when they are asked
// for first.
func (r *rig) cloudVolumes(ctx context.Context) (one, two string, err error) {
	script := fmt.Sprintf(`load() {
	modprobe "$@" 2>/dev/null && return 0
	f=$(find /usr/lib/uml/modules/$(uname -r) -name "$1.ko"); shift
	[ -z "$f" ] || insmod "$f" "$@" 2>/dev/null || true
}
[ -d /sys/bus/pseudo/drivers/scsi_debug ] || {
	for m in scsi_common scsi_mod crc64 crc64-rocksoft t10-pi sd_mod; do load $m; done
	load scsi_debug add_host=2 per_host_store=1 dev_size_mb=%d ndelay=%d max_queue=64
}
for i in $(seq 100); do [ $(ls -d %s 2>/dev/null | wc -l) = 2 ] && break; sleep 0.1; done
for d in %[3]s; do
	cd $d
	echo write through >queue/write_cache
	echo none >queue/scheduler
	echo 0 >queue/wbt_lat_usec
	echo %d >queue/max_sectors_kb
	echo %d >device/queue_depth
done`, cloudMiB, cloudDelayNS, cloudDisks, cloudRequestKB, cloudQueue)
	if _, err := shell(ctx, "sh", "-ec", script); err != nil {
		return "", "", err
	}
	disks, err := filepath.Glob(cloudDisks)
	if err != nil {
		return "", "", err
	}
	if len(disks) != 2 {
		return "", "", errors.New("no cloud volumes")
	}
	for _, path := range disks {
		if err := r.cloudVolume(path); err != nil {
			return "", "", err
		}
	}
	return r.cloud[0], r.cloud[1], nil
}

// cloudVolume presents one of scsi_debug's disks as a volume.
func (r *rig) cloudVolume(disk string) error {
	text, err := os.ReadFile(filepath.Join(disk, "dev"))
	if err != nil {
		return err
	}
	dev, err := dm.ParseDev(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	id := fmt.Sprintf("vol-cloud%d", len(r.cloud))
	name := "ebsvol-" + id
	if _, err := r.dm.Create(name, node.UUIDPrefix+id); err != nil {
		return err
	}
	r.cloud = append(r.cloud, id)
	if _, err := r.dm.Load(name, false, dm.Linear(0, uint64(cloudMiB*mib/512), dev, 0)); err != nil {
		return err
	}
	if _, err := r.dm.Resume(name, dm.ResumeFlags{}); err != nil {
		return err
	}
	return blank(id)
}
