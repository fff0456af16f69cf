package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slirp's fixed addressing, as the guest sees it.
var (
	ownAddress = [4]byte{10, 0, 2, 15}
	netmask    = [4]byte{255, 255, 255, 0}
	gateway    = [4]byte{10, 0, 2, 2}
)

// rtentry is the kernel's struct rtentry.
type rtentry struct {
	_                             uint64
	destination, gateway, genmask unix.RawSockaddrInet4
	flags                         uint16
	_                             int16
	_                             uint64
	_                             uintptr
	metric                        int16
	device                        uintptr
	mtu, window                   uint64
	irtt                          uint16
}

// configureNetwork brings up the loopback and, if there is one, eth0 with a default route.
func configureNetwork() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := up(fd, "lo"); err != nil {
		return err
	}
	if _, err := os.Stat("/sys/class/net/eth0"); err != nil {
		return nil
	}
	for _, a := range []struct {
		request uint
		value   [4]byte
	}{{unix.SIOCSIFADDR, ownAddress}, {unix.SIOCSIFNETMASK, netmask}} {
		r, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(a.value[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, a.request, r); err != nil {
			return fmt.Errorf("eth0 address: %w", err)
		}
	}
	if err := up(fd, "eth0"); err != nil {
		return err
	}
	any4 := unix.RawSockaddrInet4{Family: unix.AF_INET}
	route := rtentry{destination: any4, genmask: any4, gateway: any4, flags: unix.RTF_UP | unix.RTF_GATEWAY}
	route.gateway.Addr = gateway
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&route))); e != 0 && e != unix.EEXIST {
		return fmt.Errorf("default route: %w", e)
	}
	return nil
}

func up(fd int, name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("%s up: %w", name, err)
	}
	return nil
}
