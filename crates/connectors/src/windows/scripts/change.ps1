# volvelle: change
# Changes the password of an account of this host with the old one as proof.
param($user, $old, $new)
try {
  ([ADSI]"WinNT://$env:COMPUTERNAME/$user,user").psbase.Invoke('ChangePassword', @($old, $new))
  'result=0'
} catch { 'result=' + $_.Exception.GetBaseException().HResult.ToString('x8') }
