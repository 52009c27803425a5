package guest

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/kernel"
)

// modprobe does what the kernel asks for: "modprobe -q -- NAME". Of several modules with one alias those that find no
// device are no errors, as long as one is loaded.
func modprobe(index string, args []string) error {
	var names []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			names = append(names, a)
		}
	}
	m, err := kernel.ReadModules(index)
	if err != nil {
		return err
	}
	asked, err := m.Resolve(names...)
	if err != nil {
		return err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	dir := filepath.Join("/lib/modules", strings.TrimSpace(string(release)))
	loadAll(dir, m.Available(companions(names)...))
	if errs := loadAll(dir, asked); len(errs) > 0 && len(errs) == len(asked) {
		return errors.Join(errs...)
	}
	return nil
}

// loadAll loads files of a directory, in order, as far as it goes.
func loadAll(dir string, files []string) (errs []error) {
	for _, file := range files {
		if err := load(filepath.Join(dir, file)); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// esp is everything that an SA with AES-GCM takes. The kernel would ask for each at a time, which takes seconds under TCG,
// and it would not ask for what drives the processor's own instructions at all: that is the job of a daemon which the guest
// has not got. So that comes first, and is there when an algorithm is looked for.
var esp = []string{
	"aesni-intel", "ghash_clmulni_intel", "gcm", "ghash-generic", "ctr", "seqiv", "echainiv", "drbg", "xfrm_user", "esp4", "esp6",
}

// companions are the modules to load before those that the kernel asks for.
func companions(names []string) []string {
	for _, name := range names {
		if name == "net-pf-16-proto-6" || strings.HasPrefix(name, "xfrm-type-") || strings.HasPrefix(name, "crypto-rfc4106") { // 16, 6: NETLINK_XFRM
			return esp
		}
	}
	return nil
}

// load puts one module into the kernel. One that is there is no error.
func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 4)
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	flags := unix.MODULE_INIT_COMPRESSED_FILE
	if bytes.Equal(head, []byte(elf.ELFMAG)) {
		flags = 0
	}
	err = unix.FinitModule(int(f.Fd()), "", flags)
	if flags != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) { // it cannot unpack them itself
		var b []byte
		if b, err = kernel.ReadModule(path); err != nil {
			return err
		}
		err = unix.InitModule(b, "")
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", path, err)
	}
	return nil
}
