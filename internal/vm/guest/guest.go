// Package guest is pqlab inside of a guest kernel: its first process, which makes the host's files the guest's and runs
// one command, and its modprobe.
package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
)

// Where things are in the initramfs. Once the guest has the host's files, its own directory is at Home instead.
const (
	Program   = "pqlab/pqlab"    // this program
	Init      = "init"           // a link to it
	Modprobe  = "pqlab/modprobe" // another
	BootList  = "pqlab/boot"     // names of the modules to load first, a line each, in order
	ModuleDir = "pqlab/modules"  // those, unpacked, and the index of all

	Home = "/run/pqlab-guest"
)

// Mark is a variable that the kernel's command line puts into the environment of the first process.
const Mark = "PQLAB_GUEST"

// Accel is a variable in the environment of the guest's command: what the guest's processor is made by.
const Accel = "PQLAB_GUEST_ACCEL"

// Inside tells whether this machine is a guest.
func Inside() bool { return os.Getenv(Accel) != "" }

// Emulated tells whether this machine is a guest whose processor is emulated: it is an order of magnitude slower, and
// what takes time in it says nothing about any other.
func Emulated() bool { return os.Getenv(Accel) == "tcg" }

// Tag is the mount tag of the host's root.
const Tag = "hostroot"

// Main does not return in the first process of a guest, nor in its modprobe. Call it first in main.
func Main() {
	switch role(os.Args[0], os.Getpid(), os.Getenv(Mark)) {
	case "init":
		fmt.Fprintln(os.Stderr, "pqlab:", initialize())
		// The host has ended the guest by now, unless it is gone itself.
		unix.Sync()
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		select {}
	case "modprobe":
		if err := modprobe(Home+"/"+filepath.Base(ModuleDir), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "pqlab: modprobe:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// role tells what this process is. A wrong answer on a host would be a disaster, so all signs must agree.
func role(arg0 string, pid int, mark string) string {
	switch {
	case arg0 == "/"+Init && pid == 1 && mark == "1":
		return "init"
	case arg0 == Home+"/"+filepath.Base(Modprobe):
		return "modprobe"
	}
	return ""
}

// initialize is the first process: it returns when the host has closed the channel.
func initialize() error {
	for _, m := range []mount{
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"proc", "/proc", "proc", 0, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
	} {
		if err := m.make(); err != nil {
			return err
		}
	}
	loading := loadBoot()
	port, err := openPort(channel.Port)
	if err != nil {
		return errors.Join(loading, err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	out, in := channel.NewWriter(port), channel.NewReader(port)
	if err := out.Value(channel.Hello, channel.Guest{Release: unix.ByteSliceToString(u.Release[:])}); err != nil {
		return err
	}
	kind, data, err := in.Next()
	if err != nil {
		return err
	}
	if kind != channel.Start {
		return fmt.Errorf("%w: frame of kind %d, want a command", channel.ErrProtocol, kind)
	}
	command, err := channel.Decode[channel.Command](data)
	if err != nil {
		return err
	}
	if loading != nil {
		loading = &failure{channel.Modules, loading, 0}
	} else {
		loading = prepare(command)
	}
	return run(command, loading, out, in)
}

// failure says where the guest failed before the command ran.
type failure struct {
	stage  channel.Stage
	err    error
	status int
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// loadBoot loads the modules without which nothing can be said or seen.
func loadBoot() error {
	list, err := os.ReadFile("/" + BootList)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		if err := load(filepath.Join("/"+ModuleDir, name)); err != nil {
			return err
		}
	}
	return nil
}

// Limits of what comes up beside us.
const (
	portLimit = time.Minute
	portPoll  = time.Millisecond
)

// openPort waits for a virtio port and opens it.
func openPort(name string) (*os.File, error) {
	deadline := time.Now().Add(portLimit)
	for {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, path := range names {
			// Ports are there before their names are.
			if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == name {
				return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(path))), os.O_RDWR, 0)
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no virtio port %s after %v: the kernel lacks CONFIG_VIRTIO_CONSOLE or CONFIG_VIRTIO_PCI", name, portLimit)
		}
		time.Sleep(portPoll)
	}
}
