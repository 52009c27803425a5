package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNoModule is wrapped by the errors of modules that a kernel has neither built in nor beside it.
var ErrNoModule = errors.New("the kernel has no such module")

// Modules are those of one kernel: which there are, what each needs, and the names by which the kernel asks for them.
// The zero value is a kernel without modules.
type Modules struct {
	dir     string // the files' paths are below it; "" if the kernel has none
	files   map[string]string
	deps    map[string][]string
	soft    map[string][]string
	builtin map[string]bool
	aliases map[string][]string
	globs   []glob
}

type glob struct{ pattern, module string }

// The files of the index, as depmod makes them. Indexed makes the first three.
const (
	depFile     = "modules.dep"
	aliasFile   = "modules.alias"
	softdepFile = "modules.softdep"
	builtinFile = "modules.builtin"
)

// ReadModules reads the index in a directory like /lib/modules/6.12.117. The error wraps fs.ErrNotExist if there is
// none.
func ReadModules(dir string) (*Modules, error) {
	m := &Modules{
		dir: dir, files: map[string]string{}, deps: map[string][]string{}, soft: map[string][]string{},
		builtin: map[string]bool{}, aliases: map[string][]string{},
	}
	text := map[string]string{}
	for _, name := range []string{depFile, aliasFile, softdepFile, builtinFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && (name == depFile || !errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("modules: %w", err)
		}
		text[name] = string(b)
	}
	if err := m.parseDep(text[depFile]); err != nil {
		return nil, fmt.Errorf("modules: %s/%s: %w", dir, depFile, err)
	}
	m.parseAlias(text[aliasFile])
	for line := range strings.Lines(text[softdepFile]) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "softdep" {
			m.soft[canonical(f[1])] = softdep(strings.Join(f[2:], " "))
		}
	}
	for line := range strings.Lines(text[builtinFile]) {
		m.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return m, nil
}

// parseDep reads lines "kernel/a.ko: kernel/b.ko kernel/c.ko". No path in it may lead out of the directory.
func (m *Modules) parseDep(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		file, rest, found := strings.Cut(line, ":")
		name := moduleName(file)
		if !found || name == "" || !filepath.IsLocal(file) {
			return fmt.Errorf("bad line %.80q", line)
		}
		m.files[name] = file
		for _, dep := range strings.Fields(rest) {
			m.deps[name] = append(m.deps[name], moduleName(dep))
		}
	}
	return nil
}

// parseAlias reads lines "alias PATTERN MODULE".
func (m *Modules) parseAlias(text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			continue
		}
		pattern, module := canonical(f[1]), canonical(f[2])
		if strings.ContainsAny(pattern, "*?[") {
			m.globs = append(m.globs, glob{pattern, module})
		} else {
			m.aliases[pattern] = append(m.aliases[pattern], module)
		}
	}
}

// Dir is where the modules are, and "" of a kernel without.
func (m *Modules) Dir() string { return m.dir }

// named returns the modules that a name or alias means, and whether there are any, be it built in.
func (m *Modules) named(name string) (modules []string, known bool) {
	name = canonical(name)
	if m.files[name] != "" {
		return []string{name}, true
	}
	if m.builtin[name] {
		return nil, true
	}
	all := slices.Clone(m.aliases[name])
	for _, g := range m.globs {
		if ok, err := path.Match(g.pattern, name); ok && err == nil && !slices.Contains(all, g.module) {
			all = append(all, g.module)
		}
	}
	for _, module := range all {
		if m.files[module] != "" {
			modules = append(modules, module)
			known = true
		}
		known = known || m.builtin[module]
	}
	return modules, known
}

// Resolve returns the files to load, relative to Dir, in that order, so that everything which the named modules need
// comes before them. Names may be aliases. What is built in needs no file. The error wraps ErrNoModule.
func (m *Modules) Resolve(names ...string) ([]string, error) {
	var (
		order   []string
		visited = map[string]bool{}
		visit   func(module string, soft bool) error
	)
	visit = func(module string, soft bool) error {
		if visited[module] || m.builtin[module] {
			return nil
		}
		file := m.files[module]
		if file == "" {
			if soft {
				return nil
			}
			return fmt.Errorf("%w: %s", ErrNoModule, module)
		}
		visited[module] = true
		for _, dep := range m.soft[module] {
			if err := visit(dep, true); err != nil {
				return err
			}
		}
		for _, dep := range m.deps[module] {
			if err := visit(dep, false); err != nil {
				return fmt.Errorf("%s needs it: %w", module, err)
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range names {
		modules, known := m.named(name)
		if !known {
			return nil, fmt.Errorf("%w: %s", ErrNoModule, name)
		}
		for _, module := range modules {
			if err := visit(module, false); err != nil {
				return nil, err
			}
		}
	}
	return order, nil
}

// Available is Resolve for as many of the names as can be loaded.
func (m *Modules) Available(names ...string) []string {
	var files []string
	for _, name := range names {
		more, err := m.Resolve(name)
		if err != nil {
			continue
		}
		for _, file := range more {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files
}

// devices are the prefixes of aliases by which drivers of hardware are found. A guest has none, and they are nine in
// ten of all.
var devices = []string{
	"acpi", "amba", "auxiliary", "bcma", "cpu", "dmi", "eisa", "hdaudio", "hid", "i2c", "i3c", "ipack", "isapnp", "mcb", "mdio", "mei", "of", "parisc", "pci",
	"pcmcia", "platform", "pnp", "rpmsg", "scsi", "sdio", "sdw", "serio", "slim", "snd", "spi", "ssb", "tbsvc", "typec", "usb", "vmbus", "wmi", "xen", "zorro",
}

// Small returns those that a kernel without hardware asks for: drivers of devices are left out, and their aliases. A
// modprobe of the guest reads it each time, and it is a quarter of all.
func (m *Modules) Small() *Modules {
	small := &Modules{
		dir: m.dir, files: map[string]string{}, deps: map[string][]string{}, soft: map[string][]string{},
		builtin: m.builtin, aliases: map[string][]string{},
	}
	var keep func(name string)
	keep = func(name string) {
		if small.files[name] != "" || m.files[name] == "" {
			return
		}
		small.files[name], small.deps[name], small.soft[name] = m.files[name], m.deps[name], m.soft[name]
		for _, dep := range slices.Concat(m.deps[name], m.soft[name]) {
			keep(dep)
		}
	}
	for name, file := range m.files {
		if !strings.HasPrefix(file, "kernel/drivers/") && !strings.HasPrefix(file, "kernel/sound/") {
			keep(name)
		}
	}
	device := func(pattern string) bool {
		bus, _, found := strings.Cut(pattern, ":")
		return found && slices.Contains(devices, bus)
	}
	for pattern, names := range m.aliases {
		if !device(pattern) {
			small.aliases[pattern] = names
			for _, name := range names {
				keep(name)
			}
		}
	}
	for _, g := range m.globs {
		if !device(g.pattern) {
			small.globs = append(small.globs, g)
			keep(g.module)
		}
	}
	return small
}

// Index returns the files of the index by their names, as ReadModules reads them.
func (m *Modules) Index() map[string][]byte {
	var dep, alias, soft, builtin strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		fmt.Fprintf(&dep, "%s:", m.files[name])
		for _, d := range m.deps[name] {
			if m.files[d] != "" {
				fmt.Fprintf(&dep, " %s", m.files[d])
			}
		}
		dep.WriteByte('\n')
		if len(m.soft[name]) > 0 {
			fmt.Fprintf(&soft, "softdep %s pre: %s\n", name, strings.Join(m.soft[name], " "))
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(m.aliases)) {
		for _, module := range m.aliases[pattern] {
			fmt.Fprintf(&alias, "alias %s %s\n", pattern, module)
		}
	}
	for _, g := range m.globs {
		fmt.Fprintf(&alias, "alias %s %s\n", g.pattern, g.module)
	}
	for _, name := range slices.Sorted(maps.Keys(m.builtin)) {
		fmt.Fprintf(&builtin, "kernel/%s.ko\n", name)
	}
	return map[string][]byte{
		depFile: []byte(dep.String()), aliasFile: []byte(alias.String()),
		softdepFile: []byte(soft.String()), builtinFile: []byte(builtin.String()),
	}
}
