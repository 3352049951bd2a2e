function spm_jobman (action, jobs)
  % SPM12's batch system, as far as its shape goes: each kind of job has its fields, each file a
  % frame behind it, and each must hold all that its NIfTI header says.
  if (strcmp (action, 'initcfg'))
    return
  end
  assert (strcmp (action, 'run'), 'spm_jobman: unknown action');
  assert (iscell (jobs) && numel (jobs) == 1, 'spm_jobman: jobs is a cell array of one job here');
  job = jobs{1};
  assert (isequal (fieldnames (job), {'spm'}), 'spm_jobman: the job is not one of SPM''s');
  assert (isequal (fieldnames (job.spm), {'spatial'}), 'spm_jobman: no spatial job');
  kind = fieldnames (job.spm.spatial);
  assert (numel (kind) == 1, 'spm_jobman: several jobs in one');
  job = job.spm.spatial.(kind{1});
  report ('Running job #1');
  switch kind{1}
    case 'normalise'
      normalise (job.estwrite);
    case 'coreg'
      coregister (job);
    case 'preproc'
      tissues = strcat ('c', {'1', '2', '3', '4', '5'});
      run_named ('Segment', {job.channel.vols}, job.channel.vols, tissues, '_seg8.mat');
    case 'smooth'
      assert (isequal (size (job.fwhm), [1, 3]) && all (job.fwhm > 0), 'smooth: fwhm');
      run_named ('Smooth', {job.data}, job.data, {job.prefix});
    otherwise
      error ('spm_jobman: no job %s', kind{1});
  end
  report ('Done');
end

function coregister (job)
  % nipype gives these two without their frames, and SPM takes the first.
  if (isfield (job, 'estimate'))
    named = strcat ([job.estimate.ref; job.estimate.source], ',1');
    run_named ('Coregister: Estimate', {named}, {}, {});  % changes the header of its source only
  else
    named = strcat ([job.estwrite.ref; job.estwrite.source], ',1');
    run_named ('Coregister: Estimate & Reslice', {named}, named(2), {job.estwrite.roptions.prefix});
  end
end

function report (said)
  % As SPM does, with the time before it.
  printf ('%s - %s\n', datestr (now), said);
end

function normalise (job)
  if (isfield (job.eoptions, 'template'))
    named = {job.eoptions.template, job.subj.source, job.subj.resample};
    run_named ('Old Normalise: Estimate & Write', named, job.subj.resample, ...
               {job.roptions.prefix}, '_sn.mat');
  else
    run_named ('Normalise: Estimate & Write', {job.subj.vol, job.subj.resample}, ...
               job.subj.resample, {job.woptions.prefix, 'y_'});
  end
end

function run_named (name, needed, sources, prefixes, parameters)
  % Do as SPM does under Octave: report what runs, and what failed and why; then crash on the way
  % out, rather than raise. An image that it had begun to write is there, without its voxels.
  report (sprintf ('Running ''%s''', name));
  try
    cellfun (@(files) cellfun (@whole, files), needed);
  catch problem
    if (strcmp (name, 'Smooth'))
      [folder, stem, extension] = fileparts (without_frame (sources{1}));
      handle = fopen (fullfile (folder, [prefixes{1}, stem, extension]), 'w');
      fwrite (handle, zeros (1, 348)); fclose (handle);
    end
    report (sprintf ('Failed  ''%s''', name));
    printf ('%s\n', problem.message);
    printf ('In file "spm_run.m" (v7771), function "spm_run" at line 20.\n');
    printf ('\nThe following modules did not run:\nFailed: %s\n\n', name);
    fflush (stdout);
    kill (getpid (), 11);
    pause (9);  % until the signal ends it
  end
  for k = 1:numel (sources)
    [folder, stem, extension] = fileparts (without_frame (sources{k}));
    for prefix = prefixes
      copyfile (fullfile (folder, [stem, extension]), ...
                fullfile (folder, [prefix{1}, stem, extension]));
    end
    if (nargin > 4)
      fclose (fopen (fullfile (folder, [stem, parameters]), 'w'));
    end
  end
  report (sprintf ('Done    ''%s''', name));
end

function whole (file)
  file = without_frame (file);
  [handle, message] = fopen (file, 'r', 'ieee-le');
  if (handle < 0)
    error ('%s: %s', file, message);
  end
  fseek (handle, 40); dim = fread (handle, 4, 'int16')';
  fseek (handle, 72); bits = fread (handle, 1, 'int16');
  fseek (handle, 108); offset = fread (handle, 1, 'single');
  fseek (handle, 0, 'eof'); size = ftell (handle);
  fclose (handle);
  if (size < offset + prod (dim(2:4)) * bits / 8)
    error ('spm_vol: File too small.');
  end
end

function file = without_frame (file)
  assert (! isempty (regexp (file, ',\d+$')), 'a file without its frame: %s', file);
  file = regexprep (file, ',\d+$', '');
end
