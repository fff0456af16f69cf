package volume

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

const (
	identifyBytes          = 4096
	nvmeAdminCommand       = 0xC0484E41 // NVME_IOCTL_ADMIN_CMD
	opcodeIdentify         = 6
	identifyKindController = 1
	nvmeTimeoutMillis      = 5000

	vendorAmazon = 0x1D0F
	modelEBS     = "Amazon Elastic Block Store"
	vendorQEMU   = 0x1B36
	modelQEMU    = "QEMU NVMe Ctrl"
)

// namespace is a block device of a namespace: neither a partition nor a hidden path of a multipath one.
var namespace = regexp.MustCompile(`^nvme\d+n\d+$`)

// identity is what an NVMe controller says it is.
type identity struct {
	Vendor        uint16
	Serial, Model string // without padding
}

// NVMe finds the EBS volumes of an EC2 instance: namespaces whose controller is Amazon's, has the model of
// EBS and the volume id as its serial number. Instance store volumes are not listed.
func NVMe() Locator { return locate(union{nvme}) }

var (
	nvme = scanner{paths: namespaces, probe: nvmeProbe(ebsVolume), instances: sequences(namespaces)}
	// qemu finds volumes that a virtual machine emulates: namespaces of QEMU's controller whose serial number
	// is a volume id. It exercises the path of NVMe on machines that are not EC2's.
	qemu = scanner{paths: namespaces, probe: nvmeProbe(qemuVolume), instances: sequences(namespaces)}
)

func namespaces() ([]string, error) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if namespace.MatchString(e.Name()) {
			paths = append(paths, filepath.Join("/dev", e.Name()))
		}
	}
	return paths, nil
}

func nvmeProbe(volume func(identity) (string, error)) prober {
	return func(fd uintptr, _ dm.Dev) (string, error) {
		b, err := identifyController(fd)
		if err != nil {
			return "", err
		}
		i, err := parseIdentify(b)
		if err != nil {
			return "", err
		}
		return volume(i)
	}
}

// adminCommand is struct nvme_admin_cmd of linux/nvme_ioctl.h.
type adminCommand struct {
	opcode, flags                                    uint8
	_                                                uint16
	namespace                                        uint32
	_, _                                             uint32
	metadata, address                                uint64
	metadataLen, dataLen                             uint32
	cdw10, cdw11, cdw12, cdw13, cdw14, cdw15, millis uint32
	result                                           uint32
}

// identifyController asks the controller behind an open namespace who it is.
func identifyController(fd uintptr) ([]byte, error) {
	b := AlignedBuffer(identifyBytes)
	var pin runtime.Pinner
	pin.Pin(&b[0])
	defer pin.Unpin()
	cmd := adminCommand{
		opcode: opcodeIdentify, address: uint64(uintptr(unsafe.Pointer(&b[0]))), dataLen: identifyBytes,
		cdw10: identifyKindController, millis: nvmeTimeoutMillis,
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, nvmeAdminCommand, uintptr(unsafe.Pointer(&cmd)))
	if errno != 0 {
		return nil, fmt.Errorf("nvme identify: %w", errno)
	}
	if status != 0 { // the controller's own, which is no errno
		return nil, fmt.Errorf("nvme identify: status %#x", status)
	}
	return b, nil
}

// parseIdentify reads the fields of an Identify Controller answer that tell what it is.
func parseIdentify(b []byte) (identity, error) {
	if len(b) < 64 {
		return identity{}, fmt.Errorf("nvme identify: %d bytes", len(b))
	}
	return identity{
		Vendor: binary.LittleEndian.Uint16(b),
		Serial: strings.Trim(string(b[4:24]), " \x00"),
		Model:  strings.Trim(string(b[24:64]), " \x00"),
	}, nil
}

func ebsVolume(i identity) (string, error) {
	if i.Vendor != vendorAmazon || i.Model != modelEBS {
		return "", fmt.Errorf("%w: vendor %#x, model %q", errForeign, i.Vendor, i.Model)
	}
	return serialVolume(i.Serial)
}

func qemuVolume(i identity) (string, error) {
	if i.Vendor != vendorQEMU || i.Model != modelQEMU {
		return "", fmt.Errorf("%w: vendor %#x, model %q", errForeign, i.Vendor, i.Model)
	}
	return serialVolume(i.Serial)
}

// serialVolume turns a serial number such as vol0123456789abcdef0 into a volume id.
func serialVolume(serial string) (string, error) {
	hex, ok := strings.CutPrefix(serial, "vol")
	id := "vol-" + strings.TrimPrefix(hex, "-")
	if !ok || !validID(id) {
		return "", fmt.Errorf("%w: serial %q", errForeign, serial)
	}
	return id, nil
}
