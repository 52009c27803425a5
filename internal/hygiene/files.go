package hygiene

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"pqlab/internal/journal"
)

// prefix begins the name of every cgroup and file that pqlab makes outside of its own directories.
const prefix = "pqlab"

// takeMounts sees the namespaces that are mounted, and the cgroups below the mounted hierarchies.
func (s *Snapshot) takeMounts() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 36 35 98:0 ROOT MOUNTPOINT options [optional…] - TYPE source options (proc_pid_mountinfo(5))
		head, tail, _ := strings.Cut(lines.Text(), " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if len(fields) < 5 || len(rest) < 1 {
			continue
		}
		root, point := fields[3], unescape(fields[4])
		switch rest[0] {
		case "nsfs":
			if strings.HasPrefix(root, "net:[") {
				s.add(namespaces, root, detail{where: "mounted on " + point, ours: strings.HasPrefix(filepath.Base(point), prefix)})
			}
		case "cgroup", "cgroup2":
			err := filepath.WalkDir(point, func(path string, d fs.DirEntry, err error) error {
				switch {
				case errors.Is(err, fs.ErrPermission):
					return fs.SkipDir
				case err != nil || !d.IsDir():
					return nil // removed meanwhile
				case strings.HasPrefix(d.Name(), prefix):
					s.add(cgroups, path, detail{pid: number(d.Name())})
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// takeFiles sees files and directories named pqlab… in the temporary directory, the names of network namespaces, and
// what is in the journals' directories.
func (s *Snapshot) takeFiles() error {
	temp := os.TempDir()
	private := false
	if info, err := os.Stat(temp); err == nil {
		private = info.Mode().Perm()&0o022 == 0
	}
	journals := map[string]bool{}
	for _, dir := range journal.Dirs() {
		journals[dir] = true
		if err := s.list(dir, "", false); err != nil {
			return err
		}
	}
	entries, err := readDir(temp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(temp, e.Name())
		if strings.HasPrefix(e.Name(), prefix) && !journals[path] {
			s.add(files, path, detail{pid: number(e.Name()), ours: private})
		}
	}
	return s.list("/run/netns", prefix, true)
}

// readDir reads a directory that others write to. Of one that overlayfs merges, as a guest's are, the kernel may say that it
// does not exist when an entry goes while it is read.
func readDir(dir string) (entries []os.DirEntry, err error) {
	for range 10 {
		entries, err = os.ReadDir(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return entries, err
}

// list sees what is in dir, which need not exist.
func (s *Snapshot) list(dir, prefix string, ours bool) error {
	entries, err := readDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // somebody else's directory is somebody else's
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		s.add(files, filepath.Join(dir, e.Name()), detail{
			pid:  number(e.Name()),
			ours: ours && strings.HasPrefix(e.Name(), prefix),
		})
	}
	return nil
}

// number returns the first number in a name that can be a process's, or 0.
func number(name string) int {
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if n, err := strconv.Atoi(word); err == nil && n > 0 && n <= 1<<22 { // PID_MAX_LIMIT
			return n
		}
	}
	return 0
}
