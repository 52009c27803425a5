package vm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"pqlab/internal/vm/guest"
	"pqlab/internal/vm/initramfs"
	"pqlab/internal/vm/kernel"
)

// transport are the modules without which the guest can neither be talked to nor see the host's files.
var transport = []string{"virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay"}

// initrd makes the guest's first files, in memory: the program, and the modules that the kernel needs to see the others.
func initrd(program string, k kernel.Kernel) (*os.File, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var modules *kernel.Modules
	if k.Modules != "" {
		if modules, err = kernel.ReadModules(k.Modules); err != nil {
			return nil, &kernel.Error{Kernel: k.Name, Err: err, Remedy: "--modules takes the directory that has the modules.dep of this very kernel: …/lib/modules/" + k.Release}
		}
	}
	boot, err := bootModules(modules)
	if err != nil {
		return nil, err
	}
	f, err := memory("initramfs")
	if err != nil {
		return nil, err
	}
	buffered := bufio.NewWriterSize(f, 1<<20)
	w := initramfs.NewWriter(buffered)
	for _, dir := range []string{"dev", "proc", "sys", "root", "host", "over"} {
		w.Dir(dir)
	}
	w.Char("dev/console", 0o600, 5, 1)
	w.Program(guest.Program, binary)
	w.Link(guest.Init, guest.Program)
	w.Link(guest.Modprobe, filepath.Base(guest.Program))
	var list strings.Builder
	for _, file := range boot {
		module, err := kernel.ReadModule(filepath.Join(k.Modules, file))
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		name, _, _ := strings.Cut(filepath.Base(file), ".ko")
		w.File(filepath.Join(guest.ModuleDir, name+".ko"), module, 0o644)
		fmt.Fprintln(&list, name+".ko")
	}
	w.File(guest.BootList, []byte(list.String()), 0o644)
	if modules != nil {
		for name, text := range modules.Small().Index() {
			w.File(filepath.Join(guest.ModuleDir, name), text, 0o644)
		}
	}
	if err := errors.Join(w.Close(), buffered.Flush()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// bootModules are the files to load first, in order. A kernel that has no modules may have everything built in.
func bootModules(modules *kernel.Modules) ([]string, error) {
	if modules == nil {
		return nil, nil
	}
	files, err := modules.Resolve(transport...)
	if err != nil {
		return nil, &Error{
			Kind: ErrModules, Err: err,
			Remedy: "a guest takes " + strings.Join(transport, ", ") + ": not Debian's cloud kernels but linux-image-6.12.*-amd64 has them (pqlab vm fetch)",
		}
	}
	return files, nil
}
