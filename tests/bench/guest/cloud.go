package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/node"
)

// Volumes that are files of the host answer from the host's memory, in a few
// microseconds: what is measured on them is the processor of the node. Volumes
// of a cloud are far away. Cloud volumes are in the node's memory too, but the
// kernel's scsi_debug lets each request take its time, of which cloudQueue are
// served at once, and like EBS volumes they have no volatile cache: about 3,000
// requests a second of up to 256 KiB, 0.65 ms each, as a gp3 volume has by
// default (but for its 125 MiB/s: throughput goes up to 750).
const (
	cloudDelayNS   = 650_000
	cloudQueue     = 2
	cloudRequestKB = 256
	cloudMiB       = 832
)

// backing is the size of the two volumes between which a disk is moved.
func (r *rig) backing() int64 {
	if r.p.Cloud {
		return cloudMiB * mib
	}
	return size(r, 768*mib, gib)
}

// cloudExperiment makes the devices for the experiments that follow.
func cloudExperiment(ctx context.Context, r *rig) error {
	script := fmt.Sprintf(`load() {
	modprobe "$@" 2>/dev/null && return 0
	f=$(find /usr/lib/uml/modules/$(uname -r) -name "$1.ko"); shift
	[ -z "$f" ] || insmod "$f" "$@" 2>/dev/null || true
}
for m in scsi_common scsi_mod crc64 crc64-rocksoft t10-pi sd_mod; do load $m; done
load scsi_debug add_host=2 per_host_store=1 dev_size_mb=%d ndelay=%d max_queue=64
for i in $(seq 100); do [ $(ls /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block 2>/dev/null | grep -c '^sd') = 2 ] && exit 0; sleep 0.1; done
echo no scsi_debug devices; exit 1`, cloudMiB, cloudDelayNS)
	if _, err := shell(ctx, "sh", "-c", script); err != nil {
		return err
	}
	names, err := cloudDevices()
	if err != nil {
		return err
	}
	for _, name := range names {
		for file, value := range map[string]string{"queue/write_cache": "write through", "queue/max_sectors_kb": fmt.Sprint(cloudRequestKB), "device/queue_depth": fmt.Sprint(cloudQueue)} {
			if err := os.WriteFile(filepath.Join("/sys/block", name, file), []byte(value), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// cloudDevices are the names of scsi_debug's disks.
func cloudDevices() ([]string, error) {
	dirs, err := filepath.Glob("/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/sd*")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range dirs {
		names = append(names, filepath.Base(d))
	}
	slices.Sort(names)
	if len(names) < 2 {
		return nil, errors.New("no cloud volumes")
	}
	return names, nil
}

// cloudVolume presents a part of device i as a volume.
func (r *rig) cloudVolume(id string, i int, bytes int64) error {
	names, err := cloudDevices()
	if err != nil {
		return err
	}
	if i >= len(names) || bytes > cloudMiB*mib {
		return fmt.Errorf("no cloud volume %d of %d bytes", i, bytes)
	}
	text, err := os.ReadFile(filepath.Join("/sys/block", names[i], "dev"))
	if err != nil {
		return err
	}
	dev, err := dm.ParseDev(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	name := "ebsvol-" + id
	if _, err := r.dm.Create(name, node.UUIDPrefix+id); err != nil {
		return err
	}
	if _, err := r.dm.Load(name, false, dm.Linear(0, uint64(bytes/512), dev, 0)); err != nil {
		return err
	}
	if _, err := r.dm.Resume(name, dm.ResumeFlags{}); err != nil {
		return err
	}
	return blank(id)
}
