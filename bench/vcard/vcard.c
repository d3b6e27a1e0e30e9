/*
 * vcard: a virtual sound card for measurements, as an ALSA ioplug PCM.
 *
 * Needs no sound support in the kernel. The card's clock is CLOCK_MONOTONIC,
 * one poll wake-up a period, underruns and overruns as on hardware. Every
 * program that uses ALSA can open it, and afterwards one knows for each sample
 * the instant at which a real converter would have taken it in or put it out.
 *
 * Environment
 *   VCARD_DIR    folder for what follows. Unset: nothing is recorded, and the
 *                microphone gives faint noise.
 *                  cap-<rate>.raw       S16 mono, the microphone: the sample for
 *                                       instant t is file[floor(t0 * rate) + n],
 *                                       modulo its length, n samples after the
 *                                       start at t0. Impulses in it happen at
 *                                       known instants.
 *                  play-<pid>-<n>.raw   what was played, S16 as opened
 *                  play-<pid>-<n>.log   its events
 *                  capt-<pid>-<n>.log   events of the microphone
 *   VCARD_NOREC  set: what is played is not recorded (while CPU is measured)
 *
 * Events, in nanoseconds of CLOCK_MONOTONIC and CLOCK_REALTIME:
 *   open  <playback|capture> rate <r> channels <c> period <p> buffer <b>
 *   start <mono> <real> <frame in the .raw that lies at this instant>
 *   xrun  <mono> <real> <frame>
 *   stop  <mono> <real> <frame>
 */
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull

struct vcard {
	snd_pcm_ioplug_t io;
	int timer;               /* readable once a period: what programs poll */
	int recording;           /* -1: none */
	FILE *log;
	uint64_t t0;             /* CLOCK_MONOTONIC of frame 0 since prepare */
	int running, mapped;
	uint64_t moved;          /* frames since prepare */
	uint64_t before;         /* frames recorded before that */
	snd_pcm_uframes_t avail_min, boundary;
	int16_t *microphone;
	size_t microphone_samples;
	uint32_t noise;
};

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * SECOND + t.tv_nsec;
}

static void log_event(struct vcard *v, const char *event, uint64_t mono, uint64_t frame)
{
	uint64_t real = mono + (now_ns(CLOCK_REALTIME) - now_ns(CLOCK_MONOTONIC));
	if (!v->log)
		return;
	fprintf(v->log, "%s %llu %llu %llu\n", event, (unsigned long long)mono,
		(unsigned long long)real, (unsigned long long)frame);
	fflush(v->log);
}

/* Frames that the converter has done. 200 ns early: the timer's own rounding
 * must not make a period look unfinished at its wake-up. */
static uint64_t clock_frames(struct vcard *v)
{
	return (uint64_t)((now_ns(CLOCK_MONOTONIC) - v->t0 + 200) * (double)v->io.rate * 1e-9);
}

static void arm_now(struct vcard *v)
{
	struct itimerspec it = { .it_value.tv_nsec = 1 };
	timerfd_settime(v->timer, 0, &it, NULL);
}

static void arm_periods(struct vcard *v)
{
	uint64_t period = v->io.period_size * SECOND / v->io.rate;
	uint64_t first = v->t0 + period;
	struct itimerspec it = {
		.it_value = { .tv_sec = first / SECOND, .tv_nsec = first % SECOND },
		.it_interval = { .tv_sec = period / SECOND, .tv_nsec = period % SECOND },
	};
	timerfd_settime(v->timer, TFD_TIMER_ABSTIME, &it, NULL);
}

static void clear_timer(struct vcard *v)
{
	uint64_t count;
	ssize_t done = read(v->timer, &count, sizeof(count));
	(void)done;
}

/* What the card shows of them: whole periods, as USB and DMA cards do. With
 * single frames a program that wakes 0.2 ms late would find one frame more,
 * take it, miss one at the next wake-up, and from then on sleep through every
 * other period: alsa-lib's plugins, unlike the kernel, wait for avail_min even
 * when fewer frames are wanted. */
static uint64_t shown_frames(struct vcard *v, uint64_t frames)
{
	return frames - frames % v->io.period_size;
}

static int ran_dry(struct vcard *v, uint64_t frames, uint64_t moved)
{
	if (v->io.stream == SND_PCM_STREAM_PLAYBACK)
		return frames > moved;
	return frames > moved + v->io.buffer_size;
}

/* Frames that the program may move now; below 0: xrun. */
static int64_t avail_now(struct vcard *v, uint64_t moved)
{
	uint64_t frames = v->running ? clock_frames(v) : 0;
	int64_t shown = shown_frames(v, frames);
	if (ran_dry(v, frames, moved))
		return -1;
	if (v->io.stream == SND_PCM_STREAM_PLAYBACK)
		return (int64_t)v->io.buffer_size - ((int64_t)moved - shown);
	return shown - (int64_t)moved;
}

static int vcard_start(snd_pcm_ioplug_t *io)
{
	struct vcard *v = io->private_data;
	v->t0 = now_ns(CLOCK_MONOTONIC);
	v->running = 1;
	clear_timer(v);
	arm_periods(v);
	log_event(v, "start", v->t0, v->before);
	return 0;
}

static int vcard_stop(snd_pcm_ioplug_t *io)
{
	struct vcard *v = io->private_data;
	if (v->running) {
		v->running = 0;
		log_event(v, "stop", now_ns(CLOCK_MONOTONIC), v->before + v->moved);
		arm_now(v);
	}
	return 0;
}

static int vcard_prepare(snd_pcm_ioplug_t *io)
{
	struct vcard *v = io->private_data;
	v->running = 0;
	v->before += v->moved;
	v->moved = 0;
	if (io->stream == SND_PCM_STREAM_PLAYBACK)
		arm_now(v);
	return 0;
}

static snd_pcm_sframes_t vcard_pointer(snd_pcm_ioplug_t *io)
{
	struct vcard *v = io->private_data;
	int playback = io->stream == SND_PCM_STREAM_PLAYBACK;
	uint64_t frames, dry;
	if (!v->running)
		return 0;
	frames = clock_frames(v);
	if (ran_dry(v, frames, v->moved) && playback && io->state == SND_PCM_STATE_DRAINING) {
		frames = v->moved;
	} else if (ran_dry(v, frames, v->moved)) {
		dry = v->t0 + (uint64_t)(v->moved * 1e9 / io->rate);
		log_event(v, "xrun", playback ? dry : now_ns(CLOCK_MONOTONIC),
			  v->before + v->moved);
		v->running = 0;
		return -EPIPE;
	} else {
		frames = shown_frames(v, frames);
	}
	return (snd_pcm_sframes_t)(frames % (v->boundary ? v->boundary : io->buffer_size));
}

static void fill(struct vcard *v, int16_t *to, snd_pcm_uframes_t frames)
{
	unsigned channels = v->io.channels;
	uint64_t first = (uint64_t)((double)v->t0 * 1e-9 * v->io.rate) + v->moved;
	for (snd_pcm_uframes_t i = 0; i < frames; i++) {
		int16_t sample;
		if (v->microphone) {
			sample = v->microphone[(first + i) % v->microphone_samples];
		} else {
			v->noise = v->noise * 1664525u + 1013904223u;
			sample = (int16_t)((int32_t)v->noise >> 22);
		}
		for (unsigned c = 0; c < channels; c++)
			to[i * channels + c] = sample;
	}
}

static snd_pcm_sframes_t vcard_transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas,
					snd_pcm_uframes_t offset, snd_pcm_uframes_t frames)
{
	struct vcard *v = io->private_data;
	int playback = io->stream == SND_PCM_STREAM_PLAYBACK;
	int16_t *at = (int16_t *)((char *)areas->addr + (areas->first + areas->step * offset) / 8);

	if (!playback) {
		fill(v, at, frames);
	} else if (v->recording >= 0) {
		ssize_t done = write(v->recording, at, frames * io->channels * 2);
		(void)done;
	}
	v->moved += frames;
	if (v->running && (playback || !v->mapped) &&
	    avail_now(v, v->moved) < (int64_t)v->avail_min)
		clear_timer(v);
	return frames;
}

static int vcard_revents(snd_pcm_ioplug_t *io, struct pollfd *fds, unsigned int count,
			 unsigned short *revents)
{
	struct vcard *v = io->private_data;
	unsigned short ready = io->stream == SND_PCM_STREAM_PLAYBACK ? POLLOUT : POLLIN;
	int64_t avail;
	(void)count;
	*revents = 0;
	if (!(fds->revents & POLLIN))
		return 0;
	avail = avail_now(v, io->appl_ptr);
	if (avail < 0)
		*revents = ready | POLLERR;
	else if (avail >= (int64_t)v->avail_min)
		*revents = ready;
	if (!*revents || (avail >= 0 && io->state == SND_PCM_STATE_DRAINING))
		clear_timer(v);
	return 0;
}

static void map_microphone(struct vcard *v, const char *folder)
{
	char path[512];
	struct stat st;
	int fd;
	snprintf(path, sizeof(path), "%s/cap-%u.raw", folder, v->io.rate);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_size >= 2) {
		void *map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		if (map != MAP_FAILED) {
			if (v->microphone)
				munmap(v->microphone, v->microphone_samples * 2);
			v->microphone = map;
			v->microphone_samples = st.st_size / 2;
		}
	}
	close(fd);
}

static int vcard_hw_params(snd_pcm_ioplug_t *io, snd_pcm_hw_params_t *params)
{
	struct vcard *v = io->private_data;
	const char *folder = getenv("VCARD_DIR");
	snd_pcm_access_t access;
	int playback = io->stream == SND_PCM_STREAM_PLAYBACK;
	snd_pcm_hw_params_get_access(params, &access);
	v->mapped = access == SND_PCM_ACCESS_MMAP_INTERLEAVED;
	v->avail_min = io->period_size;
	if (v->log) {
		fprintf(v->log, "open %s rate %u channels %u period %lu buffer %lu\n",
			playback ? "playback" : "capture", io->rate, io->channels,
			io->period_size, io->buffer_size);
		fflush(v->log);
	}
	if (!playback && folder)
		map_microphone(v, folder);
	return 0;
}

static int vcard_sw_params(snd_pcm_ioplug_t *io, snd_pcm_sw_params_t *params)
{
	struct vcard *v = io->private_data;
	snd_pcm_sw_params_get_avail_min(params, &v->avail_min);
	snd_pcm_sw_params_get_boundary(params, &v->boundary);
	return 0;
}

static int vcard_close(snd_pcm_ioplug_t *io)
{
	struct vcard *v = io->private_data;
	if (v->running)
		log_event(v, "stop", now_ns(CLOCK_MONOTONIC), v->before + v->moved);
	if (v->log)
		fclose(v->log);
	if (v->recording >= 0)
		close(v->recording);
	if (v->microphone)
		munmap(v->microphone, v->microphone_samples * 2);
	close(v->timer);
	free(v);
	return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
	.start = vcard_start,
	.stop = vcard_stop,
	.pointer = vcard_pointer,
	.transfer = vcard_transfer,
	.close = vcard_close,
	.prepare = vcard_prepare,
	.hw_params = vcard_hw_params,
	.sw_params = vcard_sw_params,
	.poll_revents = vcard_revents,
};

static void open_files(struct vcard *v, const char *folder, int playback)
{
	static int serial;
	char path[512];
	int n = serial++;
	const char *kind = playback ? "play" : "capt";
	snprintf(path, sizeof(path), "%s/%s-%d-%d.log", folder, kind, (int)getpid(), n);
	v->log = fopen(path, "we");
	if (playback && !getenv("VCARD_NOREC")) {
		snprintf(path, sizeof(path), "%s/%s-%d-%d.raw", folder, kind, (int)getpid(), n);
		v->recording = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	}
}

static void set_limits(snd_pcm_ioplug_t *io)
{
	static const unsigned accesses[] = { SND_PCM_ACCESS_RW_INTERLEAVED,
					     SND_PCM_ACCESS_MMAP_INTERLEAVED };
	static const unsigned formats[] = { SND_PCM_FORMAT_S16 };
	snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_ACCESS, 2, accesses);
	snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_FORMAT, 1, formats);
	snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_CHANNELS, 1, 2);
	snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_RATE, 8000, 48000);
	snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 64, 65536);
	snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_BUFFER_BYTES, 128, 262144);
	snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIODS, 2, 64);
}

SND_PCM_PLUGIN_DEFINE_FUNC(vcard)
{
	const char *folder = getenv("VCARD_DIR");
	struct vcard *v = calloc(1, sizeof(*v));
	int error;
	(void)root;
	(void)conf;
	if (!v)
		return -ENOMEM;
	v->recording = -1;
	v->noise = 1;
	v->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (folder)
		open_files(v, folder, stream == SND_PCM_STREAM_PLAYBACK);
	v->io.version = SND_PCM_IOPLUG_VERSION;
	v->io.name = "virtual measuring card";
	v->io.callback = &callbacks;
	v->io.private_data = v;
	v->io.poll_fd = v->timer;
	v->io.poll_events = POLLIN;
	v->io.mmap_rw = 0;
	v->io.flags = SND_PCM_IOPLUG_FLAG_BOUNDARY_WA | SND_PCM_IOPLUG_FLAG_MONOTONIC;
	error = snd_pcm_ioplug_create(&v->io, name, stream, mode);
	if (error < 0) {
		free(v);
		return error;
	}
	set_limits(&v->io);
	*pcmp = v->io.pcm;
	return 0;
}
SND_PCM_PLUGIN_SYMBOL(vcard);
