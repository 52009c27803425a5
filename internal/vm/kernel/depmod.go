package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// plain are the directories of modules that a guest may need, and reads faster when they are not compressed: unpacking is
// slow on a processor that is emulated. They are one module in six.
var plain = []string{"kernel/arch", "kernel/crypto", "kernel/fs/9p", "kernel/fs/netfs", "kernel/fs/overlayfs", "kernel/lib", "kernel/net"}

// keptPlain tells whether a module is kept unpacked.
func keptPlain(rel string) bool {
	if filepath.Dir(rel) == "kernel/drivers/net" { // veth, tun and their like; hardware has directories of its own
		return true
	}
	for _, dir := range plain {
		if strings.HasPrefix(rel, dir+"/") {
			return true
		}
	}
	return false
}

// depmod writes the index of the modules in dir, of which a package that was unpacked but not installed has none, and
// unpacks some of them in their places.
func depmod(ctx context.Context, dir string) error {
	var files []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if moduleName(path) != "" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	infos := make([]modinfo, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, file := range files {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b, err := ReadModule(file)
			if err != nil {
				return err
			}
			if infos[i], err = parseModinfo(b); err != nil {
				return fmt.Errorf("module %s: %w", file, err)
			}
			rel, err := filepath.Rel(dir, file)
			if err != nil || !keptPlain(rel) || strings.HasSuffix(file, suffixes[0]) {
				return err
			}
			files[i] = filepath.Join(filepath.Dir(file), strings.SplitAfter(filepath.Base(file), suffixes[0])[0])
			return errors.Join(os.WriteFile(files[i], b, 0o644), os.Remove(file))
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	m := &Modules{
		dir: dir, files: map[string]string{}, deps: map[string][]string{}, soft: map[string][]string{},
		aliases: map[string][]string{},
	}
	for i, file := range files {
		name := moduleName(file)
		if m.files[name], err = filepath.Rel(dir, file); err != nil {
			return err
		}
		m.deps[name], m.soft[name] = infos[i].depends, infos[i].soft
		for _, alias := range infos[i].aliases {
			m.aliases[canonical(alias)] = append(m.aliases[canonical(alias)], name)
		}
	}
	index := m.Index()
	delete(index, builtinFile) // the package has it
	for name, text := range index {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
